"""ServiceAccount tokens of a pod: asked of the API server, kept, and renewed before they end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from beamlit_operator.devcluster.kubelet.variables import TokenKey
from beamlit_operator.kube import Json, KubeClient, Resource

SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")

RENEW_AFTER: Final = 0.8
"""The part of its life after which a token is replaced; as kubelet."""

DEFAULT_LIFETIME: Final = 3600


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: float
    """Seconds of the event loop's clock."""


class PodTokens:
    """The tokens one pod holds."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[TokenKey, _Token] = {}

    async def of(self, pod: Json) -> Mapping[TokenKey, str]:
        """Every token the pod's volumes project.

        Raises:
            ApiError: the API server gives none.
        """
        return {key: await self._one(pod, key) for key in sorted(wanted(pod))}

    async def _one(self, pod: Json, key: TokenKey) -> str:
        now = asyncio.get_running_loop().time()
        known = self._known.get(key)
        if known is None or now >= known.renew_at:
            audience, seconds = key
            metadata = pod["metadata"]
            bound = {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
            spec: Json = {"expirationSeconds": seconds, "boundObjectRef": bound}
            if audience:
                spec["audiences"] = [audience]
            answer = await self._client.create(
                SERVICE_ACCOUNTS,
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": spec,
                },
                metadata["namespace"],
                name=pod["spec"].get("serviceAccountName") or "default",
                subresource="token",
            )
            known = _Token(answer["status"]["token"], now + seconds * RENEW_AFTER)
            self._known[key] = known
        return known.text


def wanted(pod: Json) -> set[TokenKey]:
    """The tokens that the pod's volumes project."""
    return {
        key_of(source["serviceAccountToken"])
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    }


def key_of(projection: Json) -> TokenKey:
    """Which token a projection means."""
    seconds = projection.get("expirationSeconds")
    return projection.get("audience") or "", DEFAULT_LIFETIME if seconds is None else int(seconds)
