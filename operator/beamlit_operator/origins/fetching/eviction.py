"""Which folders of a cache go. Pure.

In this order, the first row that applies:

| the folder                                            | goes                               |
|-------------------------------------------------------|------------------------------------|
| is in use: its name is among those that are kept      | never                              |
| was used less than :data:`GRACE_SECONDS` before then  | never                              |
| is not complete: its fetcher ended and nobody goes on | always                             |
| is complete                                           | the least recently used first, as  |
|                                                       | long as all are above the limit    |

*Then* is when those that are kept were looked up, not when something is removed: in between a
revision may have come that nobody could name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

GRACE_SECONDS = 600.0
"""Also what clocks of machines may differ, and what a watch may lag behind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of a cache.

    Attributes:
        name: the identity of what is in it.
        complete: whether all of its files are there.
        bytes: what it takes of the disk.
        used: when a pod last started from it, in seconds since 1970.
        holds: what that is, for people; empty where it is not known.
    """

    name: str
    complete: bool
    bytes: int
    used: float
    holds: str = ""


def may_go(entry: Entry, *, keep: Collection[str], then: float) -> bool:
    """Whether nobody uses a folder, as of the time ``then``."""
    return entry.name not in keep and entry.used < then - GRACE_SECONDS


def chosen(
    entries: Iterable[Entry], *, keep: Collection[str], then: float, limit: int | None
) -> list[Entry]:
    """The folders that go, in this order.

    Args:
        entries: all folders.
        keep: names of those that are in use.
        then: when ``keep`` was looked up, in seconds since 1970.
        limit: bytes that all may take together; None: any number.
    """
    every = list(entries)
    idle = [entry for entry in every if may_go(entry, keep=keep, then=then)]
    going = [entry for entry in idle if not entry.complete]
    left = sum(entry.bytes for entry in every) - sum(entry.bytes for entry in going)
    for entry in sorted((e for e in idle if e.complete), key=lambda e: (e.used, e.name)):
        if limit is None or left <= limit:
            break
        going.append(entry)
        left -= entry.bytes
    return going
