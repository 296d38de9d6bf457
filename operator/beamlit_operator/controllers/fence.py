"""What of an operator's own may still reach the API server: nothing, once another could lead.

A Lease alone does not keep two from writing. A process that is stopped (a debugger, a machine that
swaps or is moved) knows nothing of the time that passes, and goes on where it was: with a write
that it had decided to make as the leader. So every write asks, at the last moment before its bytes
leave, how old the leadership is:

| the last renewal was asked for           | a write                                              |
|------------------------------------------|------------------------------------------------------|
| less than the renew deadline ago         | is sent                                              |
| longer ago, or never, or it was given up | is refused here: `NotLeadingError`                   |
| no election is held                      | is sent                                              |

Others take the Lease only after its whole duration, which is longer; what lies between is the time
that a write may take to arrive. Time is the machine's since its boot, its sleep included
(CLOCK_BOOTTIME): the monotonic clock stands still while a virtual machine is suspended.

Reads are free: who follows must read to take over at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal, TypeVar

from beamlit_operator.kube import ApiError, Json, KubeClient, ListResult, Resource, WatchEvent
from beamlit_operator.kube.transport import before_sending

T = TypeVar("T")


def boot_time() -> float:
    """Seconds since the machine was started, those that it slept included."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it, other systems do not.
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class NotLeadingError(ApiError):
    """A write was not sent, for another operator may lead by now."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeading", "this operator does not lead: nothing was written")


class Fence(KubeClient):
    """A client whose writes are let through only while ``may_write`` says so."""

    def __init__(self, client: KubeClient, *, may_write: Callable[[], bool]) -> None:
        self._client = client
        self._may_write = may_write
        self._under_way: set[asyncio.Task[Any]] = set()

    async def settle(self, within: float) -> None:
        """Waits for the writes that are under way, so that none arrives after another leads."""
        if self._under_way:
            await asyncio.wait(tuple(self._under_way), timeout=within)

    def _check(self) -> None:
        if not self._may_write():
            raise NotLeadingError

    async def _write(self, request: Coroutine[Any, Any, T]) -> T:
        """Makes a request that is not broken off: cancelled halfway, it may be carried out late."""

        async def send() -> T:
            # In this task's context only, so that reads are not asked.
            before_sending.set(self._check)
            try:
                self._check()
            except NotLeadingError:
                request.close()
                raise
            return await request

        sending = asyncio.create_task(send())
        self._under_way.add(sending)
        sending.add_done_callback(self._settled)
        return await asyncio.shield(sending)

    def _settled(self, sending: asyncio.Task[Any]) -> None:
        self._under_way.discard(sending)
        if not sending.cancelled():
            # Who asked may be gone; then its error is nobody's.
            sending.exception()

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json:
        return await self._client.get(resource, name, namespace, subresource=subresource)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        return await self._client.list(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            each=each,
        )

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
        return self._client.watch(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_seconds=timeout_seconds,
        )

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        return await self._write(
            self._client.create(resource, body, namespace, name=name, subresource=subresource)
        )

    async def update(
        self, resource: Resource, body: Json, *, subresource: str | None = None
    ) -> Json:
        return await self._write(self._client.update(resource, body, subresource=subresource))

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
        return await self._write(
            self._client.merge_patch(
                resource,
                name,
                body,
                namespace,
                subresource=subresource,
                field_manager=field_manager,
            )
        )

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        return await self._write(
            self._client.apply(
                resource, body, field_manager=field_manager, force=force, subresource=subresource
            )
        )

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
        await self._write(
            self._client.delete(
                resource,
                name,
                namespace,
                propagation=propagation,
                uid=uid,
                grace_period_seconds=grace_period_seconds,
            )
        )
