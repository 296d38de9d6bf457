"""What Envoy should have: resources by type and name, each with a version. And what changed.

A resource's version is a digest of its bytes, so it means the same to every agent: an Envoy that
reconnects to a restarted agent is sent only what differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from beamlit_operator.gateway.protos import Any_, Message, packed


class ResourceType(Enum):
    """The kinds of resources, by their type URL, in the order Envoy is to get them."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it is sent: packed, with its version."""

    version: str
    body: Message = field(compare=False, repr=False)

    @classmethod
    def of(cls, message: Message) -> Resource:
        """Packs a message. Equal messages get equal versions."""
        return cls._of(packed(message))

    @classmethod
    def of_bytes(cls, type_: ResourceType, content: bytes) -> Resource:
        """Packs a message that is serialised already."""
        return cls._of(Any_(type_url=type_.value, value=content))

    @classmethod
    def _of(cls, body: Message) -> Resource:
        return cls(hashlib.blake2b(body.value, digest_size=8).hexdigest(), body)


Delta = Mapping[ResourceType, Mapping[str, Resource | None]]
"""New states by type and name; None is a removal."""


class ResourceStore(Mapping[ResourceType, Mapping[str, Resource]]):
    """The current resources. Tells its listeners the names that changed."""

    def __init__(self) -> None:
        self._resources: dict[ResourceType, dict[str, Resource]] = {t: {} for t in ResourceType}
        self._listeners: list[Callable[[Mapping[ResourceType, set[str]]], None]] = []

    def __getitem__(self, type_: ResourceType) -> Mapping[str, Resource]:
        return self._resources[type_]

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    def subscribe(
        self, listener: Callable[[Mapping[ResourceType, set[str]]], None]
    ) -> Callable[[], None]:
        """Calls ``listener`` at each change; the answer ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def apply(self, delta: Delta) -> int:
        """Takes new states in; answers how many resources changed."""
        changed: dict[ResourceType, set[str]] = {}
        for type_, states in delta.items():
            known = self._resources[type_]
            for name, state in states.items():
                if known.get(name) == state:
                    continue
                if state is None:
                    del known[name]
                else:
                    known[name] = state
                changed.setdefault(type_, set()).add(name)
        if changed:
            for listener in list(self._listeners):
                listener(changed)
        return sum(map(len, changed.values()))
