"""What the C library does with memory that the operator gives back: it goes to the system.

A listing, a resync or a thousand deployments at once need memory for a moment. glibc keeps what is
given back for the next time, by settings that suit programs that need it soon again; an operator
needs it at its next restart. See mallopt(3).

| setting            | here   | glibc's own               | why                                   |
|--------------------|--------|---------------------------|---------------------------------------|
| `M_ARENA_MAX`      | 1      | 8 for each core           | one thread does nearly everything     |
| `M_TRIM_THRESHOLD` | 64 KiB | 128 KiB and more          | what is free at the end goes back     |
| `M_MMAP_THRESHOLD` | 64 KiB | 128 KiB, and up to 32 MiB | an answer of the API server leaves no |
|                    |        |                           | hole                                  |

Set in the process and not by variables: so it is the same in a cluster, by `beamlit dev` and in
benchmarks. Who sets such a variable decides. Other C libraries are left alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

KIB = 1024
SETTINGS = (
    # malloc.h's numbers.
    (-8, "MALLOC_ARENA_MAX", 1),
    (-1, "MALLOC_TRIM_THRESHOLD_", 64 * KIB),
    (-3, "MALLOC_MMAP_THRESHOLD_", 64 * KIB),
)


def give_back(environment: Mapping[str, str]) -> int:
    """From now on memory goes back to the system; to be called before threads begin.

    Returns how many settings were made.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that does nothing
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return 0
    return sum(
        mallopt(number, value) == 1
        for number, variable, value in SETTINGS
        if variable not in environment
    )
