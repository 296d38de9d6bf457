"""What the operator's benchmark runs: two embedded clusters, and an operator on one of them.

The other cluster is for the bare client, which repeats there the writes that were made on the
first: the same number, of the same objects, in the same order for each deployment.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.bench.quiet import cpu_seconds, resident_megabytes
from tests.support.stack import ACCESS_KEY, ROOT, SECRET_KEY, Stack

from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    NAMESPACES,
    SECRETS,
    SERVICES,
    ApiError,
    HttpClient,
    Json,
    Resource,
    resource_of,
)

API = "beamlit.com/v1alpha1"
AT_ONCE = 16
"""Requests that the one who applies has under way."""
PATIENCE = 1800.0
"""Seconds that anything may take before the benchmark gives up."""
CALM = 2.0
"""Seconds without a write and without work after which the operator counts as steady."""


class _QuietGateway(BaseHTTPRequestHandler):
    """Answers as a gateway that nobody calls."""

    def do_GET(self) -> None:
        body = json.dumps({"gateway": "bench", "deployments": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of callers that did not wait for their answer."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Cluster(Stack):
    """An embedded cluster with our kinds; with an operator if one is started.

    The operator asks a gateway for its load every two seconds: one that answers that there is none.
    """

    def start(self) -> None:
        self.start_stores()
        quiet = _QuietServer(("127.0.0.1", self._admin_port), _QuietGateway)
        Thread(target=quiet.serve_forever, daemon=True).start()
        self.start_cluster()
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            self.kubectl("apply", "-f", str(crd))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def cpu(self, name: str) -> float:
        """Seconds of processor time that a part has used."""
        return cpu_seconds([self.pid(name)])

    def memory(self) -> float:
        """MiB that the operator holds for itself."""
        return resident_megabytes(self.pid("operator"))

    def gauge(self, name: str) -> float:
        """A figure of the operator's own; the sum over all labels."""
        url = f"http://127.0.0.1:{self._operator_port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as response:
            text = response.read().decode()
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([\d.e+]+)$", text, re.MULTILINE)
        return sum(float(each) for each in found)

    def writes(self) -> int:
        """Write requests that the operator has made."""
        return int(self.gauge("beamlit_api_writes"))

    async def steady(self, *, looked_at: int = 0) -> float:
        """Until the operator has nothing to do; the monotonic time of its last work.

        ``looked_at``: how many reconciles it must have made at least.
        """
        last, since = -1.0, time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while True:
                done = await asyncio.to_thread(self.gauge, "beamlit_reconciles_total")
                now = time.monotonic()
                if done != last:
                    last, since = done, now
                elif now - since >= CALM and done >= looked_at:
                    return since
                await asyncio.sleep(0.1)


async def in_parallel(work: Iterable[Awaitable[object]], *, at_once: int = AT_ONCE) -> None:
    """Awaits all, a few at a time."""
    left = iter(work)

    async def worker() -> None:
        for each in left:
            await each

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def put(client: HttpClient, body: Json) -> Json:
    """Applies an object, as a person or Git would."""
    resource = resource_of(body["apiVersion"], body["kind"])
    return await client.apply(resource, body, field_manager="bench")


@dataclass(frozen=True, slots=True)
class Fleet:
    """``count`` deployments of as many Models, in a namespace of their own."""

    namespace: str
    count: int
    store: str

    def _names(self) -> Iterator[str]:
        return (f"model-{number}" for number in range(self.count))

    def surroundings(self) -> Iterator[Json]:
        """What is there before: namespace, Secret, Environment."""
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace},
        }
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store", "namespace": self.namespace},
            "stringData": keys,
        }
        yield self._ours("Environment", "production", {"policies": []})

    def models(self) -> Iterator[Json]:
        origin = {
            "uri": "s3://models/tiny",
            "endpoint": self.store,
            "region": "us-east-1",
            "credentialsSecretRef": {"name": "store"},
        }
        return (self._ours("Model", name, {"origin": {"s3": origin}}) for name in self._names())

    def deployments(self) -> Iterator[Json]:
        command = ["python", "/mnt/models/server.py"]
        runtime = {"image": "beamlit.dev/python:3", "command": command}
        for name in self._names():
            spec = {"model": name, "environment": "production", "runtime": runtime}
            yield self._ours("ModelDeployment", f"{name}-production", spec)

    def _ours(self, kind: str, name: str, spec: Json) -> Json:
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}


@dataclass
class Statuses:
    """Follows the ModelDeployments of a namespace: which of them are idle, as they shall be."""

    client: HttpClient
    namespace: str
    idle: set[str] = field(default_factory=set)
    last: float = 0.0
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        version = (await self.client.list(MODEL_DEPLOYMENTS, self.namespace)).resource_version
        events = self.client.watch(
            MODEL_DEPLOYMENTS, self.namespace, resource_version=version, timeout_seconds=3600
        )
        self._heard.set()
        async for event in events:
            if (event.object.get("status") or {}).get("phase") == "Idle":
                self.idle.add(event.object["metadata"]["name"])
                self.last = time.monotonic()
                self._heard.set()

    async def begun(self) -> None:
        """Until it has begun to look."""
        await self._heard.wait()

    async def until(self, count: int) -> float:
        """Waits until so many are idle; the monotonic time when they were."""
        async with asyncio.timeout(PATIENCE):
            while len(self.idle) < count:
                self._heard.clear()
                await self._heard.wait()
        return self.last


@dataclass(frozen=True, slots=True)
class Record:
    """What an operator wrote for one deployment, to be written once more."""

    deployment: Json
    children: tuple[Json, ...]
    status: Json
    model_status: Json
    events: tuple[Json, ...]
    again: int
    """How many more writes it took: repeated as statuses."""


async def recorded(client: HttpClient, fleet: Fleet, *, writes: int) -> list[Record]:
    """What is in a fleet's namespace now, with ``writes`` of the operator for all of it."""

    async def found(resource: Resource) -> list[Json]:
        return (await client.list(resource, fleet.namespace)).items

    children: dict[str, list[Json]] = {}
    for resource in (SERVICES, DEPLOYMENTS):
        for item in await found(resource):
            for owner in item["metadata"].get("ownerReferences") or ():
                children.setdefault(owner["name"], []).append(_wanted(item))
    events: dict[str, list[Json]] = {}
    for item in await found(EVENTS):
        if item["involvedObject"]["kind"] == "ModelDeployment":
            events.setdefault(item["involvedObject"]["name"], []).append(_wanted(item))
    models = {item["metadata"]["name"]: item for item in await found(MODELS)}
    deployments = await found(MODEL_DEPLOYMENTS)
    listed = sum(
        2 + len(children.get(name, ())) + len(events.get(name, ()))
        for name in (item["metadata"]["name"] for item in deployments)
    )
    extra, rest = divmod(max(0, writes - listed), len(deployments))
    return [
        Record(
            deployment=_wanted(item),
            children=tuple(children.get(item["metadata"]["name"], ())),
            status=_status(item),
            model_status=_status(models[item["spec"]["model"]]),
            events=tuple(events.get(item["metadata"]["name"], ())),
            again=extra + (number < rest),
        )
        for number, item in enumerate(deployments)
    ]


async def repeat(client: HttpClient, records: Sequence[Record], namespace: str) -> int:
    """Writes all of it to another cluster or namespace; returns how many writes that were."""
    counts = [0]

    async def one(record: Record) -> None:
        async for request in _requests(client, record, namespace):
            await request
            counts[0] += 1

    await in_parallel(one(record) for record in records)
    return counts[0]


async def _requests(
    client: HttpClient, record: Record, namespace: str
) -> AsyncIterator[Awaitable[Any]]:
    made = await put(client, _moved(record.deployment, namespace))
    owner = made["metadata"]["uid"]
    for number in range(record.again):
        early = {**record.status["status"], "phase": "Pending", "replicas": number + 1}
        yield _told(client, _moved({**record.status, "status": early}, namespace))
    for child in record.children:
        body = _moved(child, namespace)
        body["metadata"]["ownerReferences"][0]["uid"] = owner
        resource = resource_of(body["apiVersion"], body["kind"])
        yield client.apply(resource, body, field_manager="beamlit-operator")
    yield _told(client, _moved(record.status, namespace))
    for event in record.events:
        yield client.create(EVENTS, _moved(event, namespace), namespace)
    yield _told(client, _moved(record.model_status, namespace))


async def _told(client: HttpClient, body: Json) -> Json:
    resource = resource_of(body["apiVersion"], body["kind"])
    manager = "beamlit-operator-status"
    return await client.apply(resource, body, field_manager=manager, subresource="status")


_SERVERS = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


def _wanted(item: Json) -> Json:
    """An object as somebody would write it: without what the API server and controllers add."""
    body = {key: value for key, value in item.items() if key != "status"}
    metadata = item["metadata"]
    body["metadata"] = {key: value for key, value in metadata.items() if key not in _SERVERS}
    annotations = body["metadata"].get("annotations") or {}
    kept = {k: v for k, v in annotations.items() if not k.startswith("deployment.kubernetes.io/")}
    if annotations:
        body["metadata"]["annotations"] = kept
    if item["kind"] == "Service":
        spec = item["spec"]
        body["spec"] = {key: value for key, value in spec.items() if key != "clusterIPs"}
    return body


def _status(item: Json) -> Json:
    metadata = item["metadata"]
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "status": item["status"],
    }


def _moved(item: Json, namespace: str) -> Json:
    body = copy.deepcopy(item)
    body["metadata"]["namespace"] = namespace
    if body["kind"] == "Event":
        body["involvedObject"]["namespace"] = namespace
    return body


async def ensure(client: HttpClient, bodies: Iterable[Json]) -> None:
    """Applies what must be there first, in order; the namespace's own account comes with it."""
    for body in bodies:
        if body["kind"] in ("Namespace", "Secret"):
            resource = NAMESPACES if body["kind"] == "Namespace" else SECRETS
            try:
                await client.create(resource, body)
            except ApiError as error:
                if not error.conflict:
                    raise
        else:
            await put(client, body)
