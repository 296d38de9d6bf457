"""Carries EndpointSlice plans out."""

from __future__ import annotations

from beamlit_operator.devcluster.controllers.endpointslice import (
    SERVICE_NAME,
    Snapshot,
    decide,
)
from beamlit_operator.devcluster.informers import Index, Informers
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.kube import (
    ENDPOINT_SLICES,
    NODES,
    PODS,
    SERVICES,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
)

ZONE = "topology.kubernetes.io/zone"


class EndpointSliceController:
    """Keeps the EndpointSlices of every Service with a selector."""

    def __init__(self, informers: Informers) -> None:
        self._client: KubeClient = informers.client
        self._loop = KeyLoop("endpointslice", self._reconcile)
        self._services = informers.of(SERVICES)
        self._nodes = informers.of(NODES)
        self._services_by_namespace = Index(_namespace_of)
        self._pods = Index(_namespace_of)
        self._slices = Index(_service_of)
        informers.subscribe(
            SERVICES, self._services_by_namespace, lambda change: self._loop.add(change.key)
        )
        informers.subscribe(PODS, self._pods, self._pod_changed)
        informers.subscribe(ENDPOINT_SLICES, self._slices, self._slice_changed)

    async def run(self) -> None:
        """Works until cancelled."""
        await self._loop.run()

    def _pod_changed(self, change: Change) -> None:
        for service in self._services_by_namespace.get(change.key.namespace):
            for pod in (change.old, change.new):
                if pod is not None and _selects(service, pod):
                    self._loop.add(ObjectKey(change.key.namespace, service["metadata"]["name"]))

    def _slice_changed(self, change: Change) -> None:
        item = change.new or change.old or {}
        name = (item["metadata"].get("labels") or {}).get(SERVICE_NAME)
        if name:
            self._loop.add(ObjectKey(change.key.namespace, name))

    async def _reconcile(self, key: ObjectKey) -> float | None:
        service = self._services.get(key)
        if service is None:
            return None
        zones = {
            name: (node["metadata"].get("labels") or {}).get(ZONE, "")
            for (_, name), node in self._nodes.items()
        }
        pods = [pod for pod in self._pods.get(key.namespace) if _selects(service, pod)]
        slices = self._slices.get(f"{key.namespace}/{key.name}")
        plan = decide(Snapshot(service, pods, slices, zones))
        for item in plan.create:
            await self._client.create(ENDPOINT_SLICES, item, key.namespace)
        for item in plan.replace:
            await self._client.update(ENDPOINT_SLICES, item)
        for name in plan.delete:
            try:
                await self._client.delete(ENDPOINT_SLICES, name, key.namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
        return None


def _selects(service: Json, pod: Json) -> bool:
    selector = (service.get("spec") or {}).get("selector")
    if not selector:
        return False
    labels = pod["metadata"].get("labels") or {}
    return bool(selector.items() <= labels.items())


def _namespace_of(item: Json) -> tuple[str]:
    return (item["metadata"].get("namespace", ""),)


def _service_of(item: Json) -> tuple[str, ...]:
    name = (item["metadata"].get("labels") or {}).get(SERVICE_NAME)
    return (f"{item['metadata'].get('namespace', '')}/{name}",) if name else ()
