"""What became of the requests of revisions that share a deployment: what an analysis compares.

Read from Envoy's statistics, of the deployments with several listed revisions only: all of them
would be thousands of histograms every two seconds. A report never waits for Envoy: it has what was
read last, and has it read again. Errors are answers of 5xx, a model server's and the gateway's own
(a reset, a pod that cannot be reached, a start that failed) alike; a caller who hangs up got no
answer and counts as none.

Latency comes in all of Envoy's bins, of a tenth of their value, and not in the bounds that
Prometheus gets: between 50 and 100 ms there are none, and a revision at 51 ms would look twice as
slow as one at 49.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from beamlit_operator.gateway.catalog import Deployment
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.statistics import HUNG_UP, Counted, EnvoyStatistics
from beamlit_operator.gateway.telemetry import STATS_PREFIX

Json = dict[str, Any]

Latency = list[list[float]]
"""Pairs of a bound in milliseconds and how many took no longer, both rising."""

MOST_NAMED = 200
"""Deployments that Envoy is asked for by name. With more the URL would be too long, and it is asked
for all."""

_DURATIONS = f"{STATS_PREFIX}.duration.cluster."


class Outcomes:
    """Counts since Envoy started, by revision."""

    def __init__(self, deployments: Iterable[Deployment], statistics: EnvoyStatistics) -> None:
        """``deployments`` are those that exist, each time it is asked."""
        self._deployments = deployments
        self._statistics = statistics
        self._counted: Counted | None = None
        self._latency: dict[str, Latency] = {}
        self._reading: asyncio.Task[None] | None = None

    def report(self) -> dict[str, Json]:
        """By ``<workspace>/<deployment>/<revision>``; nothing before Envoy was read once."""
        shared = [each for each in self._deployments if len(each.revisions) > 1]
        if not shared:
            self._counted = None
            return {}
        if self._reading is None or self._reading.done():
            whose = _named(shared)
            self._reading = asyncio.create_task(self._read(whose), name="read outcomes")
        if self._counted is None:
            return {}
        revisions = (revision.key for each in shared for revision in each.revisions)
        return {
            key.cluster: _row(self._counted, key, self._latency.get(key.cluster, []))
            for key in revisions
        }

    def close(self) -> None:
        """Nothing is read any more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, whose: str) -> None:
        counted = await self._statistics.of(rf"^{STATS_PREFIX}\.requests\.cluster\.{whose}/")
        histograms = await self._statistics.histograms(rf"^{re.escape(_DURATIONS)}{whose}/")
        # While Envoy is away what was read before stands: nothing at all would look like a restart.
        if counted is not None and histograms is not None:
            self._counted, self._latency = counted, latencies(histograms)


def _named(deployments: Sequence[Deployment]) -> str:
    """What the names of their clusters begin with."""
    if len(deployments) > MOST_NAMED:
        return ".+"
    names = "|".join(sorted(re.escape(str(each.key)) for each in deployments))
    return f"({names})"


def latencies(histograms: str) -> dict[str, Latency]:
    """By cluster, how many requests took no longer than so many milliseconds.

    Envoy counts whole milliseconds, cut: 3 is anything from 3 up to 4. Of each bin that has
    something in it both ends are told, so that whoever adds bins up knows where each begins.
    """
    found = {}
    for part in json.loads(histograms).get("stats", ()):
        for histogram in part.get("histograms", {}).get("details", ()):
            cluster = str(histogram["name"]).removeprefix(_DURATIONS)
            rising: Latency = []
            total = 0
            for each in sorted(histogram["totals"], key=lambda each: each["lower_bound"]):
                lower = each["lower_bound"]
                if not rising or rising[-1][0] < lower:
                    rising.append([lower, total])
                total += each["count"]
                rising.append([lower + max(each["width"], 1), total])
            found[cluster] = rising
    return found


def _row(counted: Counted, key: RevisionKey, latency: Latency) -> Json:
    answered = {code: n for code, n in counted.codes(key).items() if code != HUNG_UP}
    return {
        "requests": sum(answered.values()),
        "errors": sum(n for code, n in answered.items() if code >= "500"),
        "latency": latency,
    }
