"""ServiceAccount ``default`` in every namespace, as pods and charts expect it."""

from __future__ import annotations

from beamlit_operator.devcluster.informers import Informers
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.kube import (
    NAMESPACES,
    ApiError,
    Change,
    Json,
    KubeClient,
    ObjectKey,
    Resource,
)

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")


def decide(namespace: Json, existing: Json | None) -> Json | None:
    """The ServiceAccount to create: none in a namespace that ends, or where it exists."""
    phase = (namespace.get("status") or {}).get("phase", "Active")
    if existing is not None or phase != "Active":
        return None
    if "deletionTimestamp" in namespace["metadata"]:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace["metadata"]["name"]},
    }


class ServiceAccountController:
    """Creates the account when a namespace appears or the account is gone."""

    def __init__(self, informers: Informers) -> None:
        self._client: KubeClient = informers.client
        self._loop = KeyLoop("serviceaccount", self._reconcile)
        self._namespaces = informers.of(NAMESPACES)
        self._accounts = informers.of(SERVICE_ACCOUNTS)
        informers.subscribe(NAMESPACES, lambda change: self._loop.add(change.key.name))
        informers.subscribe(SERVICE_ACCOUNTS, self._account_changed)

    async def run(self) -> None:
        """Works until cancelled."""
        await self._loop.run()

    def _account_changed(self, change: Change) -> None:
        if change.new is None:
            self._loop.add(change.key.namespace)

    async def _reconcile(self, name: str) -> float | None:
        namespace = self._namespaces.get(ObjectKey("", name))
        if namespace is None:
            return None
        body = decide(namespace, self._accounts.get(ObjectKey(name, "default")))
        if body is not None:
            try:
                await self._client.create(SERVICE_ACCOUNTS, body, name)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        return None
