"""The identity of pods: their ServiceAccount, and the volume that holds its token."""

from __future__ import annotations

import contextlib
from typing import Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.errors import forbidden
from beamlit_operator.devcluster.apiserver.metadata import generated_name
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.store import Key, duplicate
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.kube import ApiError, Json

MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where every client looks for the token of the pod it runs in."""

ROOT_CA: Final = "kube-root-ca.crt"
"""The ConfigMap of every namespace with the certificate of the API server's authority."""

_VOLUME: Final = "kube-api-access-"
_LIFETIME: Final = 3607
_OPTIONS: Final = Options(
    manager="service-account-controller", user=component("service-account-controller")
)


class PodAccounts:
    """The admission step that gives every pod an account."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def concerns(self, review: Review) -> bool:
        """New pods."""
        return review.verb == "CREATE" and review.served.resource == "pods"

    async def mutate(self, review: Review) -> Json:
        """The pod with its account, the account's pull secrets and the token's volume.

        Raises:
            ApiError: 403, the account does not exist.
        """
        assert review.new is not None
        if Key("", review.key.namespace) not in self._api.store.collection("namespaces").objects:
            return review.new
        item: Json = duplicate(review.new)
        spec = item["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(review, name)
        if account.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = duplicate(account["imagePullSecrets"])
        automount = spec.get("automountServiceAccountToken")
        if automount is None:
            automount = account.get("automountServiceAccountToken")
        if automount is not False:
            _mount_token(spec)
        return item

    async def validate(self, review: Review) -> None:
        """Nothing is refused here."""

    async def _account(self, review: Review, name: str) -> Json:
        namespace = review.key.namespace
        accounts = self._api.store.collection("serviceaccounts").objects
        if name == "default" and Key(namespace, name) not in accounts:
            # It comes with the namespace, a moment after it; whoever is faster need not fail.
            served = self._api.registry.find("", "v1", "serviceaccounts")
            with contextlib.suppress(ApiError):
                await self._api.create(served, namespace, {"metadata": {"name": name}}, _OPTIONS)
        found = accounts.get(Key(namespace, name))
        if found is None:
            raise forbidden(
                "",
                "pods",
                review.key.name,
                f"error looking up service account {namespace}/{name}: "
                f'serviceaccount "{name}" not found',
            )
        return found.obj


def _mount_token(spec: Json) -> None:
    """Adds the token's volume for the containers that mount nothing else in its place."""
    containers = [
        container
        for kind in ("initContainers", "containers")
        for container in spec.get(kind) or ()
        if all(m.get("mountPath") != MOUNT_PATH for m in container.get("volumeMounts") or ())
    ]
    if not containers:
        return
    volumes = spec.setdefault("volumes", [])
    name = next(
        (v["name"] for v in volumes if v["name"].startswith(_VOLUME)), generated_name(_VOLUME)
    )
    if all(volume["name"] != name for volume in volumes):
        volumes.append({"name": name, "projected": _projection()})
    for container in containers:
        # A list of its own: a client in this process may have given several the same one.
        mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _projection() -> Json:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _LIFETIME, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ],
    }
