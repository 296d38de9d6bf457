"""How traffic moves from one revision of a deployment to the next: what is asked for, and told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.meta import Part
from beamlit_operator.api.schema import Duration, FreeForm, IntOrString, advice, rule, rules

DEFAULT_SURGE = "100%"
DEFAULT_RETENTION = "30s"
DEFAULT_MINIMUM_REQUESTS = 20

MAX_STEPS = 32
"""Steps of a canary."""

MAX_HISTORY = 10
"""Entries of ``status.history``."""

HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
"""A token of RFC 9110: what a header's or a cookie's name is made of."""

Role = Literal["stable", "canary", "retiring"]
RolloutPhase = Literal[
    "Proving", "Progressing", "Waiting", "Analyzing", "Paused", "Aborted", "RolledBack", "Failed"
]
Judged = Literal["Good", "Bad", "Undecided"]
Outcome = Literal["Serving", "Superseded", "Aborted", "RolledBack", "Failed"]

_SURGE = r"^[0-9]{1,6}%?$"
_BOUND = r"^[-+]?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?$"

# Twice: pydantic leaves a pattern after a validator out of the schema it makes.
Surge = Annotated[
    IntOrString, Field(pattern=_SURGE, json_schema_extra={"pattern": _SURGE, "minimum": 0})
]
Bound = Annotated[IntOrString, Field(pattern=_BOUND, json_schema_extra={"pattern": _BOUND})]


class PrometheusAnalysis(Part):
    """A PromQL query whose latest value decides."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.minimum) || has(self.maximum)",
                "a query needs a bound: set minimum, maximum or both",
            ),
        )
    )

    query: str = Field(min_length=1, max_length=2048)
    """The query. `{{workspace}}`, `{{name}}`, `{{canary}}` and `{{stable}}` in it are replaced by
    the namespace, the ModelDeployment and its two revisions."""
    minimum: Bound | None = None
    """The least value that is good. A number with a point has to be quoted."""
    maximum: Bound | None = None
    """The greatest value that is good."""


class RolloutAnalysis(Part):
    """What the new revision must show before a step is left."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.maxErrorPercent) || has(self.maxLatencyPercent) || has(self.prometheus)",
                "an analysis needs a criterion: set maxErrorPercent, maxLatencyPercent or "
                "prometheus",
            ),
        )
    )

    minimum_requests: int = Field(default=DEFAULT_MINIMUM_REQUESTS, ge=1, le=1_000_000)
    """Requests that the new revision must have answered in this step before its numbers count."""
    max_error_percent: int | None = Field(default=None, ge=0, le=100)
    """The most of its requests that may be answered with a 5xx status, in percent."""
    max_latency_percent: int | None = Field(default=None, ge=100, le=100_000)
    """The most that its p95 latency may be, in percent of the stable revision's in the same time:
    150 allows half as much again."""
    prometheus: PrometheusAnalysis | None = None
    """A query to Prometheus; the operator must know its address."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    """What follows a bad verdict: all traffic back to the stable revision, or a wait for a
    person."""


class RolloutStep(Part):
    """One step of a canary rollout."""

    weight: int = Field(ge=0, le=100)
    """Percent of the requests that the new revision gets. With 0 it runs and is reached by the
    header `x-beamlit-revision` only."""
    pause: Duration | None = None
    """How long the step lasts; until approved when unset, or until its analysis is good if it has
    one."""
    analysis: RolloutAnalysis | None = None
    """What must be shown before this step is left, instead of `rollout.analysis`."""


class Sticky(Part):
    """What keeps a caller with the revision it got."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.header) != has(self.cookie)",
                "set header or cookie, and only one of the two",
            ),
        )
    )

    header: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME,
        json_schema_extra=advice("write a header's name, without spaces and colon: X-User"),
    )
    """Requests with the same value of this header go to the same revision."""
    cookie: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME,
        json_schema_extra=advice("write a cookie's name, without spaces and '=': revision"),
    )
    """The gateway sets this cookie; requests that bring it go to the same revision."""


class Rollout(Part):
    """How traffic moves to a new revision. Changing it starts none."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.strategy == 'Canary' || !has(self.steps) || size(self.steps) == 0",
                "steps belong to strategy Canary: set that, or remove them",
                fieldPath=".steps",
            ),
            rule(
                "self.strategy != 'Canary' || (has(self.steps) && size(self.steps) > 0)",
                "strategy Canary needs steps: list at least one weight",
                fieldPath=".steps",
            ),
            rule(
                "!has(self.steps) || (self.steps.map(s, s.weight).isSorted() && "
                "self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight)))",
                "the weights of steps must rise from each to the next",
                fieldPath=".steps",
            ),
        )
    )

    strategy: Literal["BlueGreen", "Canary"] = "BlueGreen"
    """`BlueGreen` moves all traffic once the new revision is ready; `Canary` in steps."""
    steps: tuple[RolloutStep, ...] = Field(default=(), max_length=MAX_STEPS)
    """The steps of a canary; after the last one the new revision gets everything."""
    surge: Surge = DEFAULT_SURGE
    """Replicas that may run beyond those that the load needs while two revisions run: a number, or
    percent of the stable revision's. With 0 the stable revision gives replicas up before the new
    one gets them."""
    retention: Duration = DEFAULT_RETENTION
    """How long a revision keeps its pods after it lost its traffic. Going back to it meanwhile is
    instant."""
    trial_start: bool = True
    """Whether the new revision of a deployment that sleeps is started once before it takes over."""
    start_deadline: Duration | None = None
    """How long a new revision may take until it is ready. After it a trial start is given up, and
    any other one is reported as stalled. When unset: an hour more than its runtime may take, or
    five minutes once its start fails."""
    sticky: Sticky | None = None
    """Keeps a caller with the revision it got; any request may go to either when unset."""
    analysis: RolloutAnalysis | None = None
    """For the steps that name none of their own."""


class AnalysisStatus(Part):
    """What the analysis of a step has seen. Written at most every ten seconds."""

    verdict: Judged = "Undecided"
    """`Good`, `Bad` or `Undecided`."""
    requests: int = Field(default=0, ge=0)
    """Requests that the new revision answered in this step."""
    error_percent: float | None = None
    """How many of them were answered with a 5xx status, in percent."""
    p95_milliseconds: float | None = None
    """Their 95th percentile of latency."""
    stable_p95_milliseconds: float | None = None
    """That of the stable revision in the same time."""
    message: str = Field(default="", max_length=1024)
    """What it comes to, for people."""
    updated_at: datetime | None = None
    """When these numbers were taken."""


class RolloutStatus(Part):
    """A rollout that is under way, or one that ended badly and is not tried again."""

    phase: RolloutPhase
    """`Proving` (a trial start), `Progressing` (to the weight of the step), `Waiting` (the step
    lasts), `Analyzing`, `Paused` (a person has to act), `Aborted`, `RolledBack` (by its analysis)
    or `Failed` (its trial start)."""
    stable: str = Field(max_length=63)
    """The revision that serves what the new one does not."""
    canary: str = Field(max_length=63)
    """The new revision."""
    step: int | None = Field(default=None, ge=1, le=32)
    """The step of a canary, from 1; unset once the last one is left."""
    steps: int | None = Field(default=None, ge=1, le=32)
    """How many steps there are."""
    weight: int = Field(default=0, ge=0, le=100)
    """Percent of the requests that the new revision should have now; what it has stands in
    `status.revisions`, and is less while too few of its replicas are ready."""
    replicas: int = Field(default=0, ge=0)
    """Replicas that the load needs, of both revisions together."""
    started_at: datetime
    """When the rollout began."""
    since: datetime
    """When the step, or without steps the phase, began."""
    message: str = Field(default="", max_length=1024)
    """What goes on and, when it waits for a person, what to do."""
    analysis: AnalysisStatus | None = None
    """What the analysis of the step has seen."""
    ignored_orders: tuple[Annotated[str, Field(max_length=256)], ...] = Field(
        default=(), max_length=16
    )
    """Those of `status.usedOrders` that are for the new revision."""


class ReleasedFrom(Part):
    """Where a version was released from (`beamlit release`)."""

    environment: str = Field(max_length=253)
    """The environment it ran in."""
    revision: str | None = Field(default=None, max_length=255)
    """What ran there."""
    at: str | None = Field(default=None, max_length=64)
    """When it was released."""
    by: str | None = Field(default=None, max_length=253)
    """Who released it, as the command line knew."""


class HistoryEntry(Part):
    """One revision that served, or was to serve."""

    revision: str = Field(max_length=63)
    """The name of its workload."""
    version: str = Field(default="", max_length=255)
    """The revision of the origin it served."""
    started_at: datetime
    """When its rollout began."""
    ended_at: datetime | None = None
    """When another revision had taken all of its traffic, or when it was given up."""
    outcome: Outcome
    """`Serving`, `Superseded`, `Aborted`, `RolledBack` (by its analysis) or `Failed` (its trial
    start)."""
    reason: str = Field(default="", max_length=1024)
    """Why it ended, for people."""
    spec: FreeForm | None = None
    """What defined it, as of then: `version`, `runtime`, `podTemplate`, `flavors`, `policies` and
    `withoutPolicies`. Left out when it is larger than 16 KiB."""
    released_from: ReleasedFrom | None = None
    """Where it was released from, if it was."""
