"""``metrics.k8s.io/v1beta1``: what pods and nodes use, as a metrics server tells it.

Only read, never stored, so there is no watch. The figures come from whoever runs the pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from aiohttp import web

from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.errors import (
    bad_request,
    no_such_path,
    not_allowed,
    not_found,
)
from beamlit_operator.devcluster.apiserver.paths import Target
from beamlit_operator.devcluster.apiserver.requests import json_answer
from beamlit_operator.devcluster.apiserver.selectors import label_matcher
from beamlit_operator.devcluster.apiserver.store import Entry
from beamlit_operator.devcluster.timestamps import written
from beamlit_operator.devcluster.usage import PodUse, UsageProvider
from beamlit_operator.kube import Json, ObjectKey

GROUP_VERSION: Final = ("metrics.k8s.io", "v1beta1")

RESOURCES: Final[Mapping[str, tuple[str, bool]]] = {
    "nodes": ("NodeMetrics", False),
    "pods": ("PodMetrics", True),
}
"""Plural → (kind, namespaced)."""

_API_VERSION: Final = "/".join(GROUP_VERSION)


class MetricsApi:
    """Answers requests for the group."""

    def __init__(self, api: Api, usage: UsageProvider) -> None:
        self._api = api
        self._usage = usage

    async def answer(self, request: web.Request, target: Target) -> web.Response:
        """One request.

        Raises:
            ApiError: 404 or 405.
        """
        if target.plural not in RESOURCES or target.subresource:
            raise no_such_path(target.group)
        kind, namespaced = RESOURCES[target.plural]
        nowhere = namespaced and target.name and not target.namespace
        if nowhere or (target.namespace and not namespaced):
            raise no_such_path(target.group)
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(f"{request.method} on {request.path}")
        if request.query.get("watch") in ("true", "1"):
            raise not_allowed(f"watching {target.plural} of metrics.k8s.io")
        if request.query.get("fieldSelector"):
            raise bad_request("field selectors are not supported by metrics.k8s.io here")
        found = await self._all(target)
        if target.name:
            if not found:
                raise not_found(target.group, target.plural, target.name)
            return json_answer({"kind": kind, "apiVersion": _API_VERSION, **found[0]})
        matcher = label_matcher(request.query.get("labelSelector", ""))
        items = [each for each in found if matcher is None or matcher(each)]
        return json_answer(
            {"kind": f"{kind}List", "apiVersion": _API_VERSION, "metadata": {}, "items": items}
        )

    async def _all(self, target: Target) -> list[Json]:
        used = await self._usage()
        pods = self._entries("pods")
        if target.plural == "pods":
            return [
                _pod_metrics(entry, used[key])
                for key, entry in sorted(pods.items())
                if key in used
                and target.namespace in ("", key.namespace)
                and target.name in ("", key.name)
            ]
        on_node: defaultdict[str, list[PodUse]] = defaultdict(list)
        for key, use in used.items():
            if key in pods:
                on_node[pods[key].obj["spec"].get("nodeName", "")].append(use)
        return [
            _node_metrics(entry, on_node[key.name])
            for key, entry in sorted(self._entries("nodes").items())
            if target.name in ("", key.name)
        ]

    def _entries(self, plural: str) -> dict[ObjectKey, Entry]:
        collection = self._api.collection(self._api.registry.find("", "v1", plural))
        return {
            ObjectKey(key.namespace, key.name): entry for key, entry in collection.objects.items()
        }


def _pod_metrics(entry: Entry, use: PodUse) -> Json:
    containers = [
        {"name": name, "usage": _usage(each.cores, each.bytes)}
        for name, each in sorted(use.containers.items())
    ]
    return {**_measured(entry, use.at, use.window_seconds), "containers": containers}


def _node_metrics(entry: Entry, pods: list[PodUse]) -> Json:
    """A pretend node uses what its pods use."""
    containers = [use for pod in pods for use in pod.containers.values()]
    cores = sum(use.cores for use in containers)
    size = sum(use.bytes for use in containers)
    latest = max(pods, key=lambda pod: pod.at, default=None)
    at = latest.at if latest is not None else None
    window = latest.window_seconds if latest is not None else 0.0
    return {**_measured(entry, at, window), "usage": _usage(cores, size)}


def _measured(entry: Entry, at: datetime | None, window: float) -> Json:
    metadata = entry.obj["metadata"]
    named = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
    moment = written(at) if at is not None else metadata["creationTimestamp"]
    return {
        "metadata": {**named, "creationTimestamp": moment},
        "timestamp": moment,
        "window": f"{window:.3f}s",
    }


def _usage(cores: float, size: int) -> Json:
    """As a metrics server writes them: nanocores and kibibytes."""
    return {"cpu": f"{round(cores * 1e9)}n", "memory": f"{size // 1024}Ki"}
