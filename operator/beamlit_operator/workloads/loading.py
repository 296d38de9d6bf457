"""How long a model may take to start: the preset's time, and the time to read the weights.

The deadline is what the kubelet's startup probe allows from the moment the files are there. It is
no part of what a revision is: pods that run keep the one they were made with, and a better estimate
restarts nothing.

| what                             | seconds                                                       |
|----------------------------------|---------------------------------------------------------------|
| program, compilation, warming up | the preset's `startSeconds`                                   |
| reading the weights              | their bytes at :data:`BYTES_PER_SECOND`                       |
| both together                    | at most :data:`presets.LONGEST_START`                         |
| fetching, before all that        | an hour, or the bytes at :data:`FETCHED_PER_SECOND` if longer |
"""

from collections.abc import Mapping
from typing import Any

from beamlit_operator.workloads.presets import LONGEST_START

Json = dict[str, Any]

BYTES_PER_SECOND = 100 * 2**20
"""Of reading weights from the pod's volume into memory. An assumption: a little less than what the
clouds' plain block storage gives without paying for more (AWS gp3: 125 MiB/s)."""

FETCHED_PER_SECOND = 20 * 2**20
"""Of fetching. An assumption: a link of 200 Mbit/s, shared by nobody."""

FETCH_AT_LEAST = 3600


def start_deadline(base: int, size: int) -> int:
    """Seconds from the start of the model server until it must be ready.

    Args:
        base: the preset's, in seconds.
        size: bytes to read.
    """
    return max(base, min(base + size // BYTES_PER_SECOND, LONGEST_START))


def progress_deadline(start: int, size: int) -> int:
    """Seconds in which a Deployment's pod must get ready, fetching included."""
    return start + max(FETCH_AT_LEAST, size // FETCHED_PER_SECOND)


def with_deadline(
    pod: Mapping[str, Any],
    container: str,
    *,
    base: int,
    seconds: int,
    live: Mapping[str, Any] | None,
) -> Json:
    """The pod with the deadline in its startup probe.

    Args:
        pod: the pod spec; a startup probe of the user's own stays as it is.
        container: the name of the model server's.
        base: what the probe has if nobody changed it.
        seconds: what it is to have.
        live: the pod spec of the revision while it runs, which keeps what it has.
    """
    if live is not None:
        seconds = _threshold(live, container) or seconds
    return {
        **pod,
        "containers": [
            {**each, "startupProbe": {**each["startupProbe"], "failureThreshold": seconds}}
            if each.get("name") == container and _threshold({"containers": [each]}, "") == base
            else each
            for each in pod["containers"]
        ],
    }


def _threshold(pod: Mapping[str, Any], container: str) -> int | None:
    for each in pod.get("containers") or ():
        probe = each.get("startupProbe")
        if container in ("", each.get("name")) and isinstance(probe, Mapping):
            found = probe.get("failureThreshold")
            return found if isinstance(found, int) else None
    return None
