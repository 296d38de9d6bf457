"""The tables of `rollout.bluegreen`, row by row, and what it promises whatever happens."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamlit_operator.rollout import DRAIN, RevisionState, RolloutPlan, Scaling, bluegreen, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - 2 * DRAIN
JUST_NOW = NOW - DRAIN / 2


def plan(*revisions: RevisionState, desired: str = "new", **bounds: int | bool) -> RolloutPlan:
    return decide(revisions, desired, now=NOW, scaling=Scaling(**bounds))  # type: ignore[arg-type]


TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (bluegreen.__doc__ or "").splitlines()
    if re.match(r"\| (none|present)", line)
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row))
def test_every_row_of_the_traffic_table_holds(row: list[str]) -> None:
    stable, same, state, ready, traffic, what = row
    revisions = []
    if stable == "present":
        name = "new" if same == "yes" else "old"
        pods = 0 if state == "idle" else 3
        revisions.append(RevisionState(name, replicas=pods, ready=pods, traffic=100))
    if same != "yes":
        revisions.append(RevisionState("new", replicas=1, ready=3 if ready == "yes" else 2))
    result = plan(*revisions, minimum=0)
    assert result.serving == {"desired": "new", "stable": "old"}[traffic]
    assert result.scale == ({"new": 3} if what == "scaled to needed" else {})


def test_the_table_has_its_rows() -> None:
    assert len(TABLE) == 5


@pytest.mark.parametrize(
    ("other", "retired_at", "deleted"),
    [
        (RevisionState("old", replicas=2, ready=2, traffic=100), NOW, False),
        (RevisionState("old", replicas=1), None, True),
        (RevisionState("old", replicas=1, ready=1), NOW, False),
        (RevisionState("old", replicas=1, ready=1, retired_at=JUST_NOW), JUST_NOW, False),
        (RevisionState("old", replicas=1, ready=1, retired_at=LONG_AGO), None, True),
        (RevisionState("old", retired_at=JUST_NOW), JUST_NOW, False),
    ],
)
def test_every_row_of_the_table_of_others_holds(
    other: RevisionState, retired_at: datetime | None, deleted: bool
) -> None:
    serving = RevisionState("new", replicas=2, ready=2, traffic=0 if other.traffic else 100)
    result = plan(serving, other)
    assert result.delete == (("old",) if deleted else ())
    assert result.retired.get("old") == retired_at
    assert result.traffic["new"] == 100
    if retired_at is not None:
        assert result.requeue_after == retired_at + DRAIN - NOW


def test_an_idle_deployment_switches_at_once() -> None:
    result = plan(RevisionState("old", traffic=100))
    assert result.traffic == {"new": 100, "old": 0}
    assert not result.scale


def test_the_minimum_of_replicas_is_started_with_the_first_revision() -> None:
    assert plan(minimum=2).scale == {"new": 2}
    assert plan(minimum=2).traffic == {"new": 100}


def test_no_more_than_the_maximum_is_needed() -> None:
    old = RevisionState("old", replicas=8, ready=8, traffic=100)
    assert plan(old, maximum=3).scale == {"new": 3}
    assert plan(old, maximum=0).scale == {"new": 8}


def test_a_revision_that_cannot_start_leaves_the_old_one_serving_and_says_why() -> None:
    result = plan(
        RevisionState("old", replicas=1, ready=1, traffic=100),
        RevisionState("new", replicas=1, failure="ErrImagePull: no such image"),
    )
    assert result.serving == "old"
    assert result.stalled
    assert "ErrImagePull" in result.message
    assert not result.delete


def test_a_broken_old_revision_needs_only_one_ready_pod_to_be_replaced() -> None:
    old = RevisionState("old", replicas=5, ready=0, traffic=100, failure="CrashLoopBackOff")
    assert plan(old, RevisionState("new", replicas=1, ready=1)).serving == "new"


def test_undoing_an_edit_goes_back_to_the_draining_revision_at_once() -> None:
    result = plan(
        RevisionState("old", replicas=2, ready=2, retired_at=JUST_NOW),
        RevisionState("new", replicas=2, ready=2, traffic=100),
        desired="old",
    )
    assert result.serving == "old"
    assert result.retired == {"old": None, "new": NOW}


def test_of_two_edits_in_quick_succession_the_first_is_forgotten() -> None:
    result = plan(
        RevisionState("old", replicas=1, ready=1, traffic=100),
        RevisionState("first", replicas=1),
        desired="second",
    )
    assert result.serving == "old"
    assert result.delete == ("first",)
    assert result.scale == {"second": 1}


def test_a_disabled_deployment_loses_its_replicas_and_nothing_else() -> None:
    result = plan(RevisionState("new", replicas=3, ready=3, traffic=100), enabled=False, minimum=2)
    assert result.scale == {"new": 0}
    assert result.traffic == {"new": 100}


def test_a_clock_set_back_does_not_keep_a_revision_forever() -> None:
    future = RevisionState("old", ready=1, retired_at=NOW + timedelta(days=1))
    result = plan(RevisionState("new", ready=1, traffic=100), future)
    assert result.retired["old"] == NOW


class Lifecycle(RuleBasedStateMachine):
    """A cluster in which anything may happen between two decisions."""

    @initialize(minimum=st.integers(0, 2))
    def start(self, minimum: int) -> None:
        self.now = NOW
        self.edits = 1
        self.desired = "r1"
        self.broken: set[str] = set()
        self.bounds = Scaling(minimum=minimum, maximum=4)
        self.revisions: dict[str, RevisionState] = {}
        self.reconcile()

    def reconcile(self) -> RolloutPlan:
        before = dict(self.revisions)
        result = decide(
            before.values(), self.desired, now=self.now, scaling=self.bounds, drain=DRAIN
        )
        assert sum(result.traffic.values()) == 100
        assert result.serving not in result.delete
        assert self.desired not in result.delete
        was_serving = [each for each in before.values() if each.traffic]
        for each in was_serving:
            # What serves is never taken away while it does, and never for less.
            assert each.name not in result.delete
            if self.bounds.enabled:
                assert each.name not in result.scale or result.scale[each.name] >= each.replicas
            if each.ready and result.serving != each.name and self.bounds.enabled:
                assert before[result.serving].ready >= 1
        for name in result.delete:
            gone = before[name]
            assert gone.ready == 0 or (
                gone.retired_at is not None and self.now - gone.retired_at >= DRAIN
            )
        self.revisions = {
            name: replace(
                before.get(name, RevisionState(name)),
                traffic=weight,
                retired_at=result.retired[name],
                replicas=result.scale.get(name, before.get(name, RevisionState(name)).replicas),
            )
            for name, weight in result.traffic.items()
        }
        return result

    def _set(self, name: str, **changes: int) -> None:
        self.revisions[name] = replace(self.revisions[name], **changes)  # type: ignore[arg-type]

    @rule()
    def reconcile_again(self) -> None:
        self.reconcile()

    @rule(broken=st.booleans())
    def edit(self, broken: bool) -> None:
        self.edits += 1
        self.desired = f"r{self.edits}"
        if broken:
            self.broken.add(self.desired)
        self.reconcile()

    @precondition(lambda self: self.edits > 1)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        self.desired = f"r{data.draw(st.integers(1, self.edits))}"
        self.reconcile()

    @rule(data=st.data())
    def pods_become_ready(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.revisions)))
        if name not in self.broken:
            self._set(name, ready=self.revisions[name].replicas)

    @rule(data=st.data())
    def pods_die(self, data: st.DataObject) -> None:
        self._set(data.draw(st.sampled_from(sorted(self.revisions))), ready=0)

    @rule(replicas=st.integers(0, 4))
    def the_autoscaler_acts_on_what_serves(self, replicas: int) -> None:
        serving = next(each for each in self.revisions.values() if each.traffic)
        self._set(serving.name, replicas=replicas, ready=min(replicas, serving.ready))

    @rule()
    def switch_off_and_on(self) -> None:
        self.bounds = replace(self.bounds, enabled=not self.bounds.enabled)
        self.reconcile()

    @rule(seconds=st.integers(-100, 100))
    def time_passes_or_jumps(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def one_revision_serves(self) -> None:
        if getattr(self, "revisions", None):
            assert sum(each.traffic for each in self.revisions.values()) == 100

    def teardown(self) -> None:
        """Left alone, it converges: to the desired revision, or to a serving one that is sound."""
        if not getattr(self, "revisions", None):
            return
        self.bounds = replace(self.bounds, enabled=True)
        for _ in range(6):
            self.reconcile()
            for name in list(self.revisions):
                if name not in self.broken:
                    self._set(name, ready=self.revisions[name].replicas)
            self.now += DRAIN
        settled = self.reconcile()
        if self.desired not in self.broken:
            assert set(self.revisions) == {self.desired}
            assert settled.requeue_after is None
            assert not settled.progressing
        else:
            assert len(self.revisions) <= 2
        again = dict(self.revisions)
        self.reconcile()
        assert self.revisions == again


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
