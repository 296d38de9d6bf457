"""How much of a store's answer is taken, and for how long it is listened to.

The address of a store is what a Model's author says, and a library reads an answer as a whole into
memory before anybody can look at it. For the operator, which looks at the stores of all workspaces,
an answer without an end would be its own end. Not meant here are the files themselves, which are
read in parts.

| the answer                                     | what happens           |
|------------------------------------------------|------------------------|
| has more than so many bytes, once decoded      | refused                |
| has more than so many values, by their signs,  | refused                |
| each of which takes up to 200 bytes in memory  |                        |
| is still arriving after a minute               | refused                |
| is a page of a listing that has no end         | refused after a minute |
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from beamlit_operator.origins.errors import OriginError, OriginReason

_T = TypeVar("_T")

SECONDS = 60.0

HUB_BYTES = 64 * 2**20
"""A repository of 100,000 files with long names is told in 30 MiB."""

HUB_VALUES = 2_000_000
"""The same has 1,200,000."""

S3_BYTES = 8 * 2**20
"""A page has at most 1,000 keys of 1,024 bytes, each of which takes three where it is quoted, and
perhaps the names of as many versions."""

S3_VALUES = 100_000
"""A page of versions has up to 30 for each of its 1,000 keys."""


def taken(parts: Iterable[bytes], *, most: int, values: int, signs: bytes) -> bytes:
    """The answer that arrives in parts.

    Args:
        parts: as they arrive.
        most: how many bytes it may have.
        values: how many of ``signs`` it may have.
        signs: with each of which a value begins.

    Raises:
        OriginError: it is too much.
    """
    found = bytearray()
    count = 0
    for part in in_time(parts):
        found += part
        count += sum(map(part.count, signs))
        if len(found) > most or count > values:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"the endpoint answers with more than {most // 2**20} MiB or {values:,} values, "
                "which no such store does: check endpoint",
            )
    return bytes(found)


def in_time(parts: Iterable[_T]) -> Iterator[_T]:
    """The parts, or pages, as long as they come within a minute.

    Raises:
        OriginError: there are still more.
    """
    until = time.monotonic() + SECONDS
    for part in parts:
        if time.monotonic() > until:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"the endpoint did not end its answer within {SECONDS:g} s: check endpoint",
            )
        yield part
