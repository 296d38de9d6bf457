"""The gateways' load reports, merged into one sample per deployment.

A gateway answers ``GET /load`` with::

    {"gateway": "<id>",
     "deployments": {"<workspace>/<name>": {"concurrency": 1.5, "requestsTotal": 42, "held": 0}}}

and lists only deployments with recent requests; ``requestsTotal`` goes on while one is not listed.
Held requests are in it as soon as they arrive. Under ``outcomes`` it counts for each of several
revisions that share a deployment. No I/O here; times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NewType

DeploymentKey = NewType("DeploymentKey", str)
"""``<workspace>/<name of the ModelDeployment>``."""

KEEP_SECONDS = 60.0
"""A gateway that does not answer counts with its last figures for so long."""


class LoadError(ValueError):
    """A gateway's answer is not a load report."""


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """One deployment at one gateway.

    Attributes:
        concurrency: requests in progress at the replicas.
        requests_total: requests since the gateway started.
        held: requests that wait for a replica.
    """

    concurrency: float
    requests_total: int
    held: int


@dataclass(frozen=True, slots=True)
class RevisionOutcome:
    """What became of the requests of one revision at one gateway, since its Envoy started.

    Attributes:
        requests: those that were answered.
        errors: those of them answered with 5xx.
        latency: how many took no longer than so many milliseconds, by rising bounds.
    """

    requests: int
    errors: int
    latency: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What one gateway reports. ``gateway`` changes when it restarts; ``refused`` is what its Envoy
    does not take of its configuration, by deployment; ``outcomes`` are those of revisions that
    share a deployment, by ``<workspace>/<deployment>/<revision>``."""

    gateway: str
    deployments: Mapping[DeploymentKey, DeploymentLoad]
    refused: Mapping[str, str] = field(default_factory=dict)
    outcomes: Mapping[str, RevisionOutcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadSample:
    """One deployment at all gateways: requests in progress, held, and per second; and in progress
    at the gateway that has most."""

    concurrency: float = 0.0
    held: float = 0.0
    requests_per_second: float = 0.0
    busiest: float = 0.0

    def scaled(self, part: float) -> LoadSample:
        """The part of it that goes to one of several revisions."""
        return LoadSample(
            self.concurrency * part,
            self.held * part,
            self.requests_per_second * part,
            self.busiest * part,
        )

    def at_least(self, other: LoadSample) -> LoadSample:
        """The larger of two views of the same load.

        What was held in one may be in progress in the other: they are compared as a sum.
        """
        busier = max(self, other, key=lambda it: it.concurrency + it.held)
        rate = max(self.requests_per_second, other.requests_per_second)
        return replace(busier, requests_per_second=rate, busiest=max(self.busiest, other.busiest))

    def __add__(self, other: LoadSample) -> LoadSample:
        return LoadSample(
            self.concurrency + other.concurrency,
            self.held + other.held,
            self.requests_per_second + other.requests_per_second,
            max(self.busiest, other.busiest),
        )


def parse_load(document: Any) -> GatewayLoad:
    """Reads decoded JSON.

    Raises:
        LoadError: it has another form; the message says where.
    """
    try:
        return GatewayLoad(
            str(document["gateway"]),
            {
                DeploymentKey(key): DeploymentLoad(
                    _number(entry["concurrency"]),
                    int(_number(entry["requestsTotal"])),
                    int(_number(entry["held"])),
                )
                for key, entry in document["deployments"].items()
            },
            # A gateway of an earlier version does not tell.
            {str(key): str(words) for key, words in (document.get("refused") or {}).items()},
            {str(key): _outcome(row) for key, row in (document.get("outcomes") or {}).items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise LoadError(f"not a load report: {type(error).__name__}: {error}") from None


def _outcome(row: Any) -> RevisionOutcome:
    latency = tuple(
        (math.inf if bound is None else _number(bound), int(_number(count)))
        for bound, count in row["latency"]
    )
    return RevisionOutcome(int(_number(row["requests"])), int(_number(row["errors"])), latency)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The last report of one gateway, and what was derived from it."""

    gateway: str
    reported_seconds: float
    samples: Mapping[DeploymentKey, LoadSample]
    totals: Mapping[DeploymentKey, int]


class LoadMerger:
    """Remembers each gateway's last report and adds them up.

    | gateway                     | counts as                                         |
    |-----------------------------|---------------------------------------------------|
    | answered                    | its report; rate = difference to the one before   |
    | answered for the first time | its report; rate 0, as there is nothing to compare|
    | lists a deployment for the  | its report; of an unknown number of requests only |
    | first time                  | those in progress or held are known to be new     |
    | restarted (id or counter)   | its report; rate from 0                           |
    | does not answer             | for ``keep_seconds`` the sum is at least what it  |
    |                             | was when all answered                             |
    | does not answer for longer  | nothing                                           |

    A gateway that is gone leaves its callers to the others: to add its last figures to theirs would
    count them twice. One that only is not heard still serves: to leave it out would end what it
    uses. The larger of the two views is right in both cases.

    Bounded: by the gateways that answered within ``keep_seconds`` and the deployments they report.
    """

    def __init__(self, *, keep_seconds: float = KEEP_SECONDS) -> None:
        self._keep = keep_seconds
        self._sources: dict[str, _Remembered] = {}
        self._when_all_answered: dict[DeploymentKey, LoadSample] = {}

    def record(self, source: str, load: GatewayLoad, *, now_seconds: float) -> None:
        """Takes the report of the gateway at address ``source``."""
        before = self._sources.get(source)
        restarted = before is not None and before.gateway != load.gateway
        samples: dict[DeploymentKey, LoadSample] = {}
        for key, deployment in load.deployments.items():
            rate = 0.0
            if before is not None and now_seconds > before.reported_seconds:
                earlier = 0 if restarted else before.totals.get(key)
                rate = _rate(earlier, deployment, now_seconds - before.reported_seconds)
            busiest = deployment.concurrency
            samples[key] = LoadSample(deployment.concurrency, deployment.held, rate, busiest)
        # A quiet deployment leaves the report, not the counter: its total is kept until forgotten.
        totals: dict[DeploymentKey, int] = (
            {} if before is None or restarted else dict(before.totals)
        )
        totals.update({key: item.requests_total for key, item in load.deployments.items()})
        self._sources[source] = _Remembered(load.gateway, now_seconds, samples, totals)

    def samples(self, *, now_seconds: float) -> dict[DeploymentKey, LoadSample]:
        """The sums over all gateways; those with a report of ``now_seconds`` answered."""
        self._expire(now_seconds)
        merged: dict[DeploymentKey, LoadSample] = {}
        all_answered = True
        for source in self._sources.values():
            if source.reported_seconds < now_seconds:
                all_answered = False
                continue
            for key, sample in source.samples.items():
                merged[key] = merged.get(key, LoadSample()) + sample
        if all_answered:
            self._when_all_answered = dict(merged)
            return merged
        for key, sample in self._when_all_answered.items():
            merged[key] = merged.get(key, LoadSample()).at_least(sample)
        return merged

    def is_blind(self, *, now_seconds: float) -> bool:
        """No gateway counts: nothing is known, which is not the same as no load."""
        self._expire(now_seconds)
        return not self._sources

    def forget_all_but(self, known: Iterable[DeploymentKey]) -> None:
        """Drops the totals of deployments that exist no more.

        Not of those that the last report lists: one that is known again soon, because it was
        disabled for a moment, must not count its past as a burst.
        """
        keep = set(known)
        for source, remembered in self._sources.items():
            if remembered.totals.keys() <= keep | remembered.samples.keys():
                continue
            self._sources[source] = replace(
                remembered,
                totals={
                    key: total
                    for key, total in remembered.totals.items()
                    if key in keep or key in remembered.samples
                },
            )

    def _expire(self, now_seconds: float) -> None:
        for source, remembered in list(self._sources.items()):
            if now_seconds - remembered.reported_seconds > self._keep:
                del self._sources[source]


def _rate(earlier: int | None, now: DeploymentLoad, seconds: float) -> float:
    """Requests per second since the report before."""
    if earlier is None:
        # Its counter may be as old as the gateway. But it was not listed before, so nothing of it
        # was in progress then.
        return min(now.requests_total, now.held + math.floor(now.concurrency)) / seconds
    if now.requests_total < earlier:
        earlier = 0  # the gateway restarted under the same id
    return (now.requests_total - earlier) / seconds


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a quantity")
    return value
