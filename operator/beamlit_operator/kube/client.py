"""What the rest of the project may ask of a Kubernetes API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from beamlit_operator.kube.resources import Resource

Json = dict[str, Any]
"""An object as it travels: decoded JSON."""

WatchEventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class ApiError(Exception):
    """An answer of the API server that is not a success.

    Attributes:
        status: the HTTP status code (0 when the server could not be reached).
        reason: the machine-readable ``reason`` of the Status object, e.g. ``NotFound``.
        message: the sentence for people.
        details: the Status object's ``details``, empty when it had none.
        retry_after: seconds the server asked to wait, if it did.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """The object changed meanwhile, exists already, or a field belongs to somebody else."""
        return self.status == 409

    @property
    def gone(self) -> bool:
        """The resourceVersion is too old: list again (410 or reason ``Expired``)."""
        return self.status == 410 or self.reason in ("Expired", "Gone")


@dataclass(frozen=True, slots=True)
class ListResult:
    """A collection at one point of its history."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change, with the object as it is after it (for DELETED: as it last was)."""

    type: WatchEventType
    object: Json


class KubeClient(Protocol):
    """A connection to one cluster. Every method raises :class:`ApiError`.

    Objects are plain dicts with ``apiVersion`` and ``kind`` set. A ``subresource`` is ``status`` or
    ``scale`` (of which the object is an ``autoscaling/v1`` Scale).
    """

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json: ...

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        """All objects, page by page.

        ``each`` gets every object as its page arrives, and what it returns is listed instead: so
        that of thousands of objects no more is held than what is kept of them.
        """
        ...

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        """POST: a new object, or with ``name`` a subresource such as ``token`` of that object."""
        ...

    async def update(
        self,
        resource: Resource,
        body: Json,
        *,
        subresource: str | None = None,
    ) -> Json:
        """PUT: replaces the object (or its subresource); honours ``metadata.resourceVersion``."""
        ...

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        body: Json,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Json:
        """RFC 7386 merge patch; ``field_manager`` is who the fields are then recorded for."""
        ...

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        """Server-side apply; name and namespace are read from ``body.metadata``."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        """Deletes one object; ``uid`` is a precondition."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, in order, with bookmarks.

        Ends without error at the server's timeout. Raises :class:`ApiError` with ``gone`` when the
        history no longer reaches back that far.
        """
        ...
