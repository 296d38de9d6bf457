"""A plan: everything a reconcile wants done, as data. It can be printed, compared and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from beamlit_operator.kube import Json, Resource


@dataclass(frozen=True, slots=True)
class Scale:
    """Set the replicas of one of our Deployments, through its `scale` subresource."""

    name: str
    replicas: int
    because: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """Delete one object, if it still is that one."""

    resource: Resource
    name: str
    uid: str
    because: str
    grace: int | None = None
    """Seconds a pod gets to end; None leaves it what its spec says."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An Event on the object: written on a transition, with a message that is stable."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one object, in this order: apply, create, scale, delete, status, events."""

    status: Json | None = None
    """The whole status as it should be; None leaves it alone."""
    apply: tuple[Json, ...] = ()
    """Children to bring to this form by server-side apply, without `spec.replicas`."""
    first_replicas: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """By name of a Deployment in `apply`: the replicas it starts with if it does not exist yet."""
    create: tuple[Json, ...] = ()
    """Objects to make unless there are any of their names; nothing keeps them in form."""
    scale: tuple[Scale, ...] = ()
    delete: tuple[Deletion, ...] = ()
    events: tuple[Announcement, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, for what no event announces."""
