"""What became of the requests of revisions that share a deployment: what an analysis compares.

Read from Envoy's statistics, of the deployments with several listed revisions only: all of them
would be thousands of histograms every two seconds. A report never waits for Envoy: it has what was
read last, and has it read again. Errors are answers of 5xx, a model server's and the gateway's own
(a reset, a pod that cannot be reached, a start that failed) alike; a caller who hangs up got no
answer and counts as none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from beamlit_operator.gateway.catalog import Deployment
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.statistics import HUNG_UP, Counted, EnvoyStatistics
from beamlit_operator.gateway.telemetry import STATS_PREFIX

Json = dict[str, Any]


class Outcomes:
    """Counts since Envoy started, by revision."""

    def __init__(self, deployments: Iterable[Deployment], statistics: EnvoyStatistics) -> None:
        """``deployments`` are those that exist, each time it is asked."""
        self._deployments = deployments
        self._statistics = statistics
        self._counted: Counted | None = None
        self._reading: asyncio.Task[None] | None = None

    def report(self) -> dict[str, Json]:
        """By ``<workspace>/<deployment>/<revision>``; nothing before Envoy was read once."""
        shared = [each for each in self._deployments if len(each.revisions) > 1]
        if not shared:
            self._counted = None
            return {}
        if self._reading is None or self._reading.done():
            pattern = _pattern(shared)
            self._reading = asyncio.create_task(self._read(pattern), name="read outcomes")
        if self._counted is None:
            return {}
        revisions = (revision.key for each in shared for revision in each.revisions)
        return {key.cluster: _row(self._counted, key) for key in revisions}

    def close(self) -> None:
        """Nothing is read any more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, pattern: str) -> None:
        counted = await self._statistics.of(pattern)
        # While Envoy is away what was read before stands: nothing at all would look like a restart.
        self._counted = counted or self._counted


def _pattern(deployments: Iterable[Deployment]) -> str:
    """Of the names of the statistics that are wanted."""
    names = "|".join(sorted(re.escape(str(each.key)) for each in deployments))
    return rf"^{STATS_PREFIX}\.(requests|duration)\.cluster\.({names})/"


def _row(counted: Counted, key: RevisionKey) -> Json:
    answered = {code: n for code, n in counted.codes(key).items() if code != HUNG_UP}
    durations = counted.durations.get(key)
    latency = [
        [None if bound == "+Inf" else round(float(bound) * 1000, 3), int(count)]
        for bound, count in (durations.buckets if durations is not None else ())
    ]
    return {
        "requests": sum(answered.values()),
        "errors": sum(n for code, n in answered.items() if code >= "500"),
        "latency": latency,
    }
