"""What Envoy counts of each revision's requests, as Prometheus wants it.

Envoy knows clusters; people know models. At a scrape the agent fetches the few statistics that
:mod:`telemetry` had Envoy make, and names them anew from the catalog. Scrapes that come at the same
time share one fetch. What was never used is not there, and what is gone from the catalog is left
out.

================================  ==============================================================
Envoy's counter of requests       counted as
================================  ==============================================================
has a cluster                     a request of that revision, by the code the caller got; 0, the
                                  caller hung up before there was one, is 499 (nginx's number)
...and a flag of an error         also an error of the gateway, by the flag's reason
has no cluster, and 401 or 403    an error of the gateway: ``Unauthenticated``, ``Forbidden``
has no cluster, but a route name  an error of the gateway: error routes are named by their reason
has neither                       an error of the gateway, by the code
================================  ==============================================================
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

import aiohttp

from beamlit_operator.gateway.metrics import LABELS, GatewayMetrics
from beamlit_operator.gateway.names import RevisionKey
from beamlit_operator.gateway.replies import ErrorReason
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.telemetry import STATS_PREFIX

log = logging.getLogger(__name__)

FETCH_TIMEOUT = 8.0
"""Seconds Envoy may take; Prometheus itself waits ten by default."""

CHUNK = 500
"""Lines after which others have their turn, some 5 ms: thousands of deployments may be in use."""

HUNG_UP = "499"

_LINE = re.compile(rf"envoy_{STATS_PREFIX}_(\w+)\{{([^}}]*)\}} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

_BY_FLAG = {
    "NR": ErrorReason.NOT_FOUND,
    **dict.fromkeys(("UC", "UR", "LR", "UPE"), ErrorReason.UPSTREAM_RESET),
    "UO": ErrorReason.OVERLOADED,
    **dict.fromkeys(("UH", "UF", "URX", "NC"), ErrorReason.UNAVAILABLE),
    **dict.fromkeys(("DPE", "IH"), ErrorReason.BAD_REQUEST),
    **dict.fromkeys(("SI", "UT", "UMSDR", "OM", "DO"), ErrorReason.GATEWAY_ERROR),
}

_BY_CODE = {
    "408": ErrorReason.REQUEST_TIMEOUT,
    "413": ErrorReason.PAYLOAD_TOO_LARGE,
    "431": ErrorReason.HEADERS_TOO_LARGE,
}
# Both as the main listener's local replies give them.

_BY_GATE = {"401": ErrorReason.UNAUTHENTICATED, "403": ErrorReason.FORBIDDEN}
"""No route of ours answers with these."""

COUNTERS = {
    "beamlit_gateway_requests": "Requests that ended, by the code their caller got.",
    "beamlit_gateway_request_bytes": "Bytes of request bodies.",
    "beamlit_gateway_response_bytes": "Bytes of response bodies.",
    "beamlit_gateway_errors": "Requests the gateway itself answered with an error, by reason.",
}
HISTOGRAM = "beamlit_gateway_request_duration_seconds"
FAMILIES = (
    *COUNTERS.items(),
    (HISTOGRAM, "From a request's first byte to its response's last, held time included."),
)
"""Names (without ``_total``) and descriptions of everything here."""


@dataclass(slots=True)
class Durations:
    """A cumulative histogram; seconds."""

    buckets: list[tuple[str, float]] = field(default_factory=list)
    sum: float = 0.0
    count: float = 0.0


@dataclass(slots=True)
class Counted:
    """What Envoy counted since it started."""

    requests: Counter[tuple[RevisionKey, str]] = field(default_factory=Counter)
    bytes_in: Counter[RevisionKey] = field(default_factory=Counter)
    bytes_out: Counter[RevisionKey] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    durations: dict[RevisionKey, Durations] = field(default_factory=lambda: defaultdict(Durations))

    def codes(self, revision: RevisionKey) -> dict[str, int]:
        """The requests of one revision, by code."""
        return {code: count for (key, code), count in self.requests.items() if key == revision}

    def take(self, line: str) -> None:
        """Takes one line of Envoy's Prometheus text in; others than ours are passed over."""
        found = _LINE.match(line)
        if found is None:
            return
        name, labels, value = found[1], dict(_LABEL.findall(found[2])), float(found[3])
        revision = RevisionKey.of_cluster(labels.get("cluster", ""))
        if name == "requests":
            self._take_requests(revision, labels, value)
        elif revision is None:
            return
        elif name == "bytes_in":
            self.bytes_in[revision] += int(value)
        elif name == "bytes_out":
            self.bytes_out[revision] += int(value)
        elif name == "duration_bucket":
            self.durations[revision].buckets.append((_seconds(labels["le"]), value))
        elif name == "duration_sum":
            self.durations[revision].sum = value / 1000
        elif name == "duration_count":
            self.durations[revision].count = value

    def _take_requests(
        self, revision: RevisionKey | None, labels: dict[str, str], value: float
    ) -> None:
        code = labels.get("code", "0")
        code = HUNG_UP if code == "0" else code
        if revision is not None:
            self.requests[revision, code] += int(value)
        reason = _reason(labels, code=code, routed=revision is not None)
        if reason:
            self.errors[reason, code] += int(value)


def _reason(labels: dict[str, str], *, code: str, routed: bool) -> str:
    """Why the gateway answered with an error; empty if it did not."""
    if code < "400" or code == HUNG_UP:
        return ""
    if not routed and code in _BY_GATE:
        return _BY_GATE[code]
    if not routed and labels.get("route"):
        return labels["route"]
    if not routed and code in _BY_CODE:
        return _BY_CODE[code]
    for flag in labels.get("flags", "").split(","):
        if flag in _BY_FLAG:
            return _BY_FLAG[flag]
    if routed:
        return ""
    return ErrorReason.BAD_REQUEST if code < "500" else ErrorReason.GATEWAY_ERROR


def _seconds(milliseconds: str) -> str:
    return milliseconds if milliseconds == "+Inf" else repr(float(milliseconds) / 1000)


class EnvoyStatistics:
    """Fetches from Envoy's administration interface."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._url = f"http://{settings.envoy_admin}/stats"
        self._fetching: asyncio.Task[Counted] | None = None

    async def read(self) -> Counted:
        """What Envoy counted; nothing while it is not there, which readiness tells of."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch(), name="fetch statistics")
        # One scraper that hangs up must not cancel the others' fetch.
        return await asyncio.shield(self._fetching)

    async def _fetch(self) -> Counted:
        return await self.of(rf"^{STATS_PREFIX}\.") or Counted()

    async def of(self, pattern: str) -> Counted | None:
        """What Envoy counted in the statistics whose names match; None while it is not there."""
        counted = Counted()
        asked = {"usedonly": "", "text_readouts": "false", "filter": pattern}
        text = await self._text(f"{self._url}/prometheus", asked)
        if text is None:
            return None
        for number, line in enumerate(text.splitlines(), 1):
            counted.take(line)
            if number % CHUNK == 0:
                await asyncio.sleep(0)
        return counted

    async def histograms(self, pattern: str) -> str | None:
        """The histograms whose names match with all their bins, as JSON; None while Envoy is not
        there. Prometheus gets some twenty bounds of them, these are within a tenth."""
        asked = {
            **{"format": "json", "histogram_buckets": "detailed", "type": "Histograms"},
            **{"usedonly": "", "filter": pattern},
        }
        return await self._text(self._url, asked)

    async def _text(self, url: str, asked: dict[str, str]) -> str | None:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, params=asked) as response,
            ):
                response.raise_for_status()
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("envoy's statistics are not there: %s: %s", type(error).__name__, error)
            return None


async def rendered(
    counted: Counted, metrics: GatewayMetrics, *, exists: Callable[[RevisionKey], bool]
) -> AsyncIterator[bytes]:
    """Prometheus' text of what was counted, with the agent's own errors, in chunks."""
    known: dict[RevisionKey, str] = {}

    def labels(revision: RevisionKey) -> str:
        if revision not in known:
            values = metrics.labels_of(revision) if exists(revision) else ()
            # Names in Kubernetes need no escaping.
            known[revision] = ",".join(
                f'{name}="{value}"' for name, value in zip(LABELS, values, strict=False)
            )
        return known[revision]

    lines: list[str] = []
    for line in _lines(counted, metrics.errors, labels):
        lines.append(line)
        if len(lines) == CHUNK:
            yield ("\n".join(lines) + "\n").encode()
            lines = []
            await asyncio.sleep(0)
    yield ("\n".join(lines) + "\n").encode()


def _lines(
    counted: Counted, errors: Counter[tuple[str, str]], labels: Callable[[RevisionKey], str]
) -> Iterable[str]:
    names = iter(COUNTERS)
    name = next(names)
    yield from _head(name, COUNTERS[name], "counter")
    for (revision, code), count in sorted(counted.requests.items()):
        if labels(revision):
            yield f'{name}_total{{{labels(revision)},code="{code}"}} {count}'
    for values in (counted.bytes_in, counted.bytes_out):
        name = next(names)
        yield from _head(name, COUNTERS[name], "counter")
        for revision, size in sorted(values.items()):
            if labels(revision):
                yield f"{name}_total{{{labels(revision)}}} {size}"
    name = next(names)
    yield from _head(name, COUNTERS[name], "counter")
    for (reason, code), count in sorted((counted.errors + errors).items()):
        yield f'{name}_total{{reason="{reason}",code="{code}"}} {count}'
    yield from _head(HISTOGRAM, dict(FAMILIES)[HISTOGRAM], "histogram")
    for revision, found in sorted(counted.durations.items()):
        about = labels(revision)
        if about:
            for bound, value in found.buckets:
                yield f'{HISTOGRAM}_bucket{{{about},le="{bound}"}} {value}'
            yield f"{HISTOGRAM}_sum{{{about}}} {found.sum}"
            yield f"{HISTOGRAM}_count{{{about}}} {found.count}"


def _head(name: str, description: str, kind: str) -> Iterable[str]:
    # The text format of Prometheus names a counter with its suffix.
    shown = f"{name}_total" if kind == "counter" else name
    return f"# HELP {shown} {description}", f"# TYPE {shown} {kind}"
