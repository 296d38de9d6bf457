"""What all pods of this process share: the client, images, addresses, settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from beamlit_operator.devcluster.events import EventRecorder
from beamlit_operator.devcluster.images import ImageStore, ImageTable
from beamlit_operator.devcluster.kubelet.addresses import Addresses
from beamlit_operator.devcluster.kubelet.backoff import BackOff
from beamlit_operator.devcluster.kubelet.guard import Guard
from beamlit_operator.kube import ApiError, Json, KubeClient, Resource

PASSED_ON = (
    # Where to find programs, how to speak, and how this machine reaches the world: a container
    # would have its own of the first two, and the cluster's administrator would set the third.
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Variables of the cluster's own environment that pod processes get. Nothing else leaks in."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The kubelet's times, all in seconds."""

    restarts: BackOff = field(default_factory=BackOff)
    pulls: BackOff = field(default_factory=BackOff)
    missing_retry: float = 1.0
    """Between looks at a Secret, ConfigMap or volume that is missing."""
    volume_refresh: float = 60.0
    """Between looks at the Secrets and ConfigMaps of mounted volumes; kubelet's sync period."""
    shutdown_grace: float = 2.0
    """What pods get when the whole cluster stops; their own grace may be half a minute."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The shared things. One per cluster."""

    client: KubeClient
    events: EventRecorder
    table: ImageTable
    store: ImageStore
    addresses: Addresses
    guard: Guard
    session: aiohttp.ClientSession
    folder: Path
    """Holds one folder per pod, named by uid."""
    allocatable: Callable[[str], Mapping[str, str]]
    """What a node has, by name."""
    settings: Settings = field(default_factory=Settings)
    cluster: Mapping[str, str] = field(default_factory=dict)
    """Variables that tell every pod where the API server is."""

    async def objects(self, resource: Resource, namespace: str, names: set[str]) -> dict[str, Json]:
        """Those of the named objects that exist."""
        found = {}
        for name in sorted(names):
            try:
                found[name] = await self.client.get(resource, name, namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
        return found


def inherited(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The part of this process's environment that pods get."""
    values = {name: environ[name] for name in PASSED_ON if name in environ}
    if any(name.lower().endswith("_proxy") for name in values):
        # Pods talk to each other and to servers of this machine directly.
        for name in ("NO_PROXY", "no_proxy"):
            listed = [part for part in values.get(name, "").split(",") if part]
            values[name] = ",".join([*listed, "localhost", "127.0.0.1", "127.0.0.0/8"])
    return values
