"""Reads what goes into a support bundle, and takes the secrets out of it before anything is kept.

| path                                   | what                                                    |
|----------------------------------------|---------------------------------------------------------|
| `doctor.txt`, `doctor.json`            | what `beamlit doctor` says                              |
| `versions.yaml`                        | the cluster, this program, its machine                  |
| `objects/KIND.yaml`                    | our four kinds                                          |
| `workloads/KIND.yaml`                  | what runs for them: Deployments, Services, pods, ...    |
| `system/KIND.yaml`                     | operator and gateway, their configuration, the Lease    |
| `cluster/KIND.yaml`                    | nodes, definitions, admission, namespaces               |
| `events/NAMESPACE.yaml`                | events of all those namespaces                          |
| `secrets.yaml`                         | Secrets there, as names and keys                        |
| `logs/POD/CONTAINER.log`               | operator's and gateway's, also of the run before        |
| `metrics/POD.txt`                      | what Prometheus would read of them                      |
| `missing.txt`                          | what could not be read, and why                         |

Logs of models are left out: they may hold what callers send.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import yaml
from rich.console import Console

from beamlit_operator import __version__
from beamlit_operator.api import labels
from beamlit_operator.cli.bundle.redaction import Redaction, outline
from beamlit_operator.cli.cluster import Target
from beamlit_operator.cli.doctor.command import examined
from beamlit_operator.cli.doctor.components import is_ours
from beamlit_operator.cli.doctor.gatherer import SYSTEM
from beamlit_operator.cli.doctor.report import as_json, show
from beamlit_operator.controllers.admission.configuration import CONFIGURATIONS
from beamlit_operator.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENVIRONMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    LEASES,
    MODEL_DEPLOYMENTS,
    MODELS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    POLICIES,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    ApiError,
    HttpClient,
    Json,
    Resource,
)

LOG_LINES = 20_000
LOG_BYTES = 4 << 20
"""Of each container, the newest."""

MOST_EVENTS = 2_000
"""Of each namespace, the newest."""

_OURS = f"{labels.MANAGED_BY}={labels.OPERATOR_NAME}"

_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
_LIMITS = Resource("", "v1", "limitranges", "LimitRange")
_NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")


class Contents:
    """The files of one bundle."""

    def __init__(
        self, client: HttpClient, target: Target, *, system: str | None, log_dir: Path | None
    ) -> None:
        """``log_dir`` has logs of processes that are no pods."""
        self._client = client
        self._target = target
        self._system = system or SYSTEM
        self._named = system
        self._log_dir = log_dir
        self._redaction = Redaction()
        self._files: dict[str, str] = {}
        self._missing: list[str] = []

    async def read(self) -> dict[str, str]:
        """Texts by path; none of them holds a secret that is known or looks like one."""
        ours = {kind: await self._list(kind) for kind in _FOUR}
        spaces = sorted(
            {str(i["metadata"].get("namespace", "")) for items in ours.values() for i in items}
            | {self._system}
        )
        # First of all: what they hold is looked for in everything else.
        secrets = [s for space in spaces for s in await self._list(SECRETS, space)]
        self._redaction = Redaction(secrets)
        self._put("secrets.yaml", map(outline, secrets))
        for kind, items in ours.items():
            self._objects("objects", kind, items)
        await self._workloads(spaces)
        await self._cluster(spaces)
        await self._own()
        for space in spaces:
            events = await self._list(EVENTS, space)
            events.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
            self._put(f"events/{space}.yaml", map(self._redaction.object, events[-MOST_EVENTS:]))
        await self._doctor()
        if self._log_dir is not None:
            self._logs_of_processes(self._log_dir)
        self._text("versions.yaml", yaml.safe_dump(await self._versions(), sort_keys=False))
        if self._missing:
            self._text("missing.txt", "\n".join(self._missing) + "\n")
        return self._files

    async def _workloads(self, spaces: Iterable[str]) -> None:
        for kind in (DEPLOYMENTS, SERVICES, HORIZONTAL_POD_AUTOSCALERS):
            self._objects("workloads", kind, await self._list(kind, selector=_OURS))
        for kind in (PODS, REPLICA_SETS, ENDPOINT_SLICES):
            found = await self._list(kind, selector=labels.MODEL_DEPLOYMENT)
            self._objects("workloads", kind, found)
        for kind in (_QUOTAS, _LIMITS, PERSISTENT_VOLUME_CLAIMS):
            found = [each for space in spaces for each in await self._list(kind, space)]
            self._objects("workloads", kind, found)

    async def _cluster(self, spaces: Iterable[str]) -> None:
        self._objects("cluster", NODES, await self._list(NODES))
        definitions = await self._list(CUSTOM_RESOURCE_DEFINITIONS)
        ours = [d for d in definitions if d["metadata"]["name"].endswith(f".{labels.GROUP}")]
        self._objects("cluster", CUSTOM_RESOURCE_DEFINITIONS, ours)
        self._objects("cluster", CONFIGURATIONS, await self._list(CONFIGURATIONS))
        known = set(spaces)
        spaces_there = await self._list(NAMESPACES)
        self._objects(
            "cluster", NAMESPACES, [n for n in spaces_there if n["metadata"]["name"] in known]
        )

    async def _own(self) -> None:
        """Operator and gateway: objects, logs, metrics."""
        space = self._system
        for kind in (DEPLOYMENTS, SERVICES, CONFIG_MAPS, LEASES, _NETWORK_POLICIES):
            self._objects("system", kind, await self._list(kind, space))
        pods = await self._list(PODS, space)
        self._objects("system", PODS, pods)
        await asyncio.gather(*(self._pod(pod) for pod in pods if is_ours(pod)))

    async def _pod(self, pod: Json) -> None:
        name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
        path = PODS.path(space, name)
        status = pod.get("status") or {}
        for each in (
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        ):
            container = str(each.get("name"))
            await self._log(path, container, f"logs/{name}/{container}.log")
            if each.get("restartCount"):
                file = f"logs/{name}/{container}.previous.log"
                await self._log(path, container, file, previous=True)
        port = f"{PODS.path(space)}/{name}:8081/proxy/metrics"
        await self._fetch(f"metrics/{name}.txt", port)

    async def _log(self, pod: str, container: str, file: str, *, previous: bool = False) -> None:
        query = {
            "container": container,
            "tailLines": str(LOG_LINES),
            "limitBytes": str(LOG_BYTES),
            "timestamps": "true",
        }
        await self._fetch(file, f"{pod}/log", query | ({"previous": "true"} if previous else {}))

    async def _fetch(self, file: str, path: str, query: dict[str, str] | None = None) -> None:
        try:
            response = await self._client.request("GET", path, query=query)
            self._text(file, (await response.read()).decode(errors="replace"))
        except ApiError as error:
            self._missing.append(f"{file}: {error.message or error}")

    async def _doctor(self) -> None:
        results = await examined(self._client, self._target, system=self._named)
        self._text("doctor.json", as_json(results))
        out = StringIO()
        show(Console(file=out, width=120), results)
        self._text("doctor.txt", "\n".join(line.rstrip() for line in out.getvalue().splitlines()))

    async def _versions(self) -> Json:
        cluster: Json = {}
        try:
            response = await self._client.request("GET", "/version")
            cluster = yaml.safe_load(await response.read())
        except ApiError as error:
            self._missing.append(f"the cluster's version: {error.message or error}")
        return {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "beamlit": __version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
            "clockAhead": self._client.clock_difference,
            "kubernetes": cluster,
        }

    def _logs_of_processes(self, folder: Path) -> None:
        files = sorted(folder.glob("*.log"))
        if not files:
            self._missing.append(f"{folder}: no *.log in it")
        for file in files:
            try:
                text = file.read_bytes()[-LOG_BYTES:].decode(errors="replace")
            except OSError as error:
                self._missing.append(f"{file}: {error.strerror}")
            else:
                self._text(f"logs/{file.name}", text)

    async def _list(
        self, kind: Resource, namespace: str | None = None, *, selector: str | None = None
    ) -> list[Json]:
        if namespace is None and kind.namespaced:
            namespace = self._target.namespace
        try:
            found = await self._client.list(kind, namespace, label_selector=selector)
        except ApiError as error:
            where = f" in {namespace}" if namespace else ""
            self._missing.append(f"{kind.plural}{where}: {error.message or error}")
            return []
        return found.items

    def _objects(self, folder: str, kind: Resource, items: Iterable[Json]) -> None:
        self._put(f"{folder}/{kind.plural}.yaml", map(self._redaction.object, items))

    def _put(self, path: str, items: Iterable[Json]) -> None:
        if found := list(items):
            text = yaml.safe_dump_all(found, sort_keys=False, allow_unicode=True)
            self._text(path, text)

    def _text(self, path: str, text: str) -> None:
        self._files[path] = self._redaction.text(text)


_FOUR = (MODELS, MODEL_DEPLOYMENTS, ENVIRONMENTS, POLICIES)
