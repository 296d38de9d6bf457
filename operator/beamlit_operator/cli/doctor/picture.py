"""What the checks look at: everything read from the cluster at one moment, or why it was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from beamlit_operator.kube import Json

T = TypeVar("T")


class UnreadError(Exception):
    """A check asked for what could not be read; says why."""


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """Something that was read, or why it was not."""

    value: T | None = None
    why_not: str = ""

    def known(self) -> T:
        """What was read.

        Raises:
            UnreadError: it was not.
        """
        if self.value is None:
            raise UnreadError(self.why_not or "it was not read")
        return self.value


UNREAD: Read[list[Json]] = Read(why_not="it was not read")


@dataclass(frozen=True, slots=True)
class Review:
    """What became of an object that the webhook would have to refuse, created without effect."""

    refused_by_webhook: bool = False
    passed: bool = False
    error: str = ""
    """The API server's words when the webhook could not be called."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The gateway's answer to a request for a model that does not exist."""

    url: str
    status: int
    ours: bool
    """Whether it has the shape of our errors."""


@dataclass(frozen=True, slots=True)
class Right:
    """Something a component must be allowed to do, and whether it is."""

    component: str
    verb: str
    resource: str
    namespace: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """One look at a cluster. Lists hold objects as they travelled."""

    now: datetime
    """By the clock of this machine."""
    system: str
    """The namespace of operator and gateway."""
    cli_version: str
    everywhere: bool = True
    """Whether all workspaces were looked at, and not only one."""
    ahead: float | None = None
    """Seconds by which the clock here is ahead of the API server's."""
    version: Read[Json] = field(default_factory=Read)
    definitions: Mapping[str, Read[list[Json]]] = field(default_factory=dict)
    """By name; an empty list: there is none."""
    webhooks: Read[list[Json]] = UNREAD
    """The ValidatingWebhookConfiguration; an empty list: there is none."""
    review: Read[Review] = field(default_factory=Read)
    certificate: Read[bytes] = field(default_factory=Read)
    """What the webhook shows, as PEM."""
    guards: Read[list[Json]] = UNREAD
    """The ValidatingAdmissionPolicy of placements."""
    guard_bindings: Read[list[Json]] = UNREAD
    rights: Read[list[Right]] = field(default_factory=Read)
    workloads: Read[list[Json]] = UNREAD
    """Deployments of the system namespace that are ours."""
    pods: Read[list[Json]] = UNREAD
    """Pods of those."""
    lease: Read[list[Json]] = UNREAD
    gateway: Read[Answer] = field(default_factory=Read)
    nodes: Read[list[Json]] = UNREAD
    catalogue: Read[list[Json]] = UNREAD
    """The ConfigMap with the cluster's own regions and flavors; an empty list: there is none."""
    runtimes: Read[list[Json]] = UNREAD
    """The ConfigMaps with rows of the runtime table."""
    models: Read[list[Json]] = UNREAD
    deployments: Read[list[Json]] = UNREAD
    environments: Read[list[Json]] = UNREAD
    policies: Read[list[Json]] = UNREAD

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded cluster, where operator and gateway are no pods."""
        return "+beamlit" in str((self.version.value or {}).get("gitVersion", ""))
