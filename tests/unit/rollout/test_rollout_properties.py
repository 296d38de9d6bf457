"""Whatever people, pods, load, clocks and the operator do to a rollout, it keeps its word."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support.rollouts import Cluster, Workload, blue_green, canary

from beamlit_operator.api.rollout import RolloutStatus
from beamlit_operator.rollout import Evidence, Measured, Scaling
from beamlit_operator.rollout.capacity import limit_of, surge_of

REVISIONS = ("a", "b", "c")
SURGES = st.sampled_from(["0", "1", "25%", "100%"])
PAUSES = st.sampled_from([None, "0s", "30s"])
ANALYSES = st.sampled_from(
    [None, {"maxErrorPercent": 10}, {"maxErrorPercent": 10, "onFailure": "Pause"}]
)


@st.composite
def rollouts(draw):
    weights = sorted(draw(st.sets(st.sampled_from([0, 1, 10, 33, 50, 99, 100]), max_size=3)))
    more = {
        "surge": draw(SURGES),
        "trialStart": draw(st.booleans()),
        "startDeadline": draw(st.sampled_from([None, "20s"])),
        "retention": draw(st.sampled_from(["0s", "30s"])),
    }
    if not weights:
        return blue_green(**more)
    steps = [{"weight": weight, "pause": draw(PAUSES)} for weight in weights]
    return canary(*steps, analysis=draw(ANALYSES), **more)


class Rollouts(RuleBasedStateMachine):
    """The operator, started anew before every decision: all it knows is in the status."""

    @initialize(
        rollout=rollouts(),
        replicas=st.integers(0, 6),
        minimum=st.integers(0, 1),
        maximum=st.sampled_from([0, 1, 6]),
    )
    def begin(self, rollout, replicas, minimum, maximum):
        if maximum:
            replicas = min(replicas, maximum)
        self.cluster = Cluster(rollout=rollout, scaling=Scaling(minimum, maximum))
        self.cluster.workloads["a"] = Workload(replicas, replicas)
        self.total = replicas
        self._decide()

    def _decide(self) -> None:
        cluster = self.cluster
        before = cluster.memory
        there = sum(cluster.replicas.values())
        ready = {n: w.ready for n, w in cluster.workloads.items()}
        had = dict(cluster.weights)
        plan = cluster.step()
        self._check_weights(ready, had)
        # The pair may never grow beyond its limit; what was over it before shrinks by itself.
        after = cluster.memory
        if after is not None and plan.under_way and before is not None:
            surge = surge_of(cluster.rollout.surge, after.replicas)
            limit = limit_of(
                after.replicas, surge=surge, target=50, maximum=cluster.scaling.maximum
            )
            if after.replicas:
                assert self._playing(after) <= max(limit, there), (after, cluster.replicas)

    def _playing(self, run: RolloutStatus | None) -> int:
        names = (run.stable, run.canary) if run is not None else ()
        return sum(self.cluster.replicas.get(name, 0) for name in names)

    def _check_weights(self, ready, had) -> None:
        """No weight goes to what is not ready while something that may serve is."""
        cluster = self.cluster
        weights = cluster.weights
        assert sum(weights.values()) == 100
        assert weights.keys() <= cluster.workloads.keys()
        run = cluster.memory
        cold = cluster.rollout.surge == "0" and run is not None and run.weight == 100
        if cold or all(ready.get(name, 0) for name in weights):
            return
        assert not any(ready.get(name, 0) for name in weights)
        given_up = run.canary if run is not None and run.phase in ("Aborted", "RolledBack") else ""
        failed = run is not None and run.phase == "Failed"
        others = [n for n in had if ready.get(n, 0) and n != given_up and not failed]
        assert not others, (weights, had, ready)

    @rule()
    def decide(self):
        self._decide()

    @rule(revision=st.sampled_from(REVISIONS))
    def edit(self, revision):
        self.cluster.edit(revision)
        self._decide()

    @rule(rollout=rollouts())
    def change_the_rollout(self, rollout):
        self.cluster.rollout = rollout
        self._decide()

    @rule(
        kind=st.sampled_from(["promote", "pause", "abort"]),
        revision=st.sampled_from(REVISIONS),
        step=st.sampled_from(["", "/1", "/2"]),
    )
    def order(self, kind, revision, step):
        self.cluster.order(kind, revision + (step if kind == "promote" else ""))
        self._decide()

    @rule()
    def take_orders_back(self):
        self.cluster.annotations.clear()
        self._decide()

    @rule()
    def pods_start(self):
        self.cluster.start_pods()
        self._decide()

    @precondition(lambda self: self.cluster.workloads)
    @rule(data=st.data(), failure=st.sampled_from([None, "crash"]))
    def pods_are_lost(self, data, failure):
        name = data.draw(st.sampled_from(sorted(self.cluster.workloads)))
        self.cluster.workloads[name].ready = 0
        self.cluster.workloads[name].failure = failure
        self._decide()

    @rule()
    def failures_heal(self):
        for each in self.cluster.workloads.values():
            each.failure = None
        self._decide()

    @rule(total=st.integers(0, 6))
    def load_changes(self, total):
        """As the autoscaler does: for both while a rollout shares the load, else directly."""
        cluster = self.cluster
        least, most = cluster.scaling.minimum, cluster.scaling.maximum
        total = max(min(total, most) if most else total, least)
        if cluster.memory is not None and cluster.plan.under_way:
            cluster.demand = total
        else:
            for name in cluster.weights:
                cluster.workloads[name].replicas = total
                cluster.workloads[name].ready = min(cluster.workloads[name].ready, total)
        self._decide()

    @rule()
    def somebody_calls(self):
        """A gateway wakes what has weight and sleeps."""
        for name in self.cluster.weights:
            if self.cluster.workloads[name].replicas == 0:
                self.cluster.workloads[name].replicas = 1
        self._decide()

    @rule(seconds=st.sampled_from([1, 10, 40, 400, 4000]))
    def time_passes(self, seconds):
        self.cluster.later(seconds)
        self._decide()

    @rule(seconds=st.sampled_from([-86400, -30, 30, 86400]))
    def the_clock_is_set(self, seconds):
        unused = {name: each.unused for name, each in self.cluster.workloads.items()}
        self.cluster.later(seconds)
        for name, each in self.cluster.workloads.items():
            each.unused = unused[name]
        self._decide()

    @rule(errors=st.sampled_from([0, 50]), requests=st.sampled_from([0, 100]))
    def numbers_come(self, errors, requests):
        self.cluster.evidence = Evidence(
            Measured(requests, errors=min(errors, requests), p95_milliseconds=10.0),
            Measured(requests, p95_milliseconds=10.0),
        )
        self._decide()

    @rule()
    def the_status_is_lost(self):
        self.cluster.rows, self.cluster.memory = {}, None
        self.cluster.used, self.cluster.history = (), ()
        self._decide()

    @invariant()
    def what_serves_is_not_starved(self):
        """A revision with weight has a replica, unless the deployment sleeps or changes sides."""
        if not hasattr(self, "cluster") or self.cluster.memory is None:
            return
        run = self.cluster.memory
        if (
            run.replicas == 0
            or self.cluster.rollout.surge == "0"
            or not self.cluster.plan.under_way
        ):
            return
        for name in self.cluster.weights:
            if name in (run.stable, run.canary):
                assert self.cluster.replicas[name] > 0, (name, run, self.cluster.replicas)

    @invariant()
    def history_is_bounded_and_has_one_that_serves(self):
        if hasattr(self, "cluster"):
            assert len(self.cluster.history) <= 10
            assert len([e for e in self.cluster.history if e.outcome == "Serving"]) == 1

    def teardown(self):
        """Left alone, with good numbers and approvals, it ends."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.annotations.clear()
        cluster.evidence = Evidence(
            Measured(1000, p95_milliseconds=1.0), Measured(1000, p95_milliseconds=1.0)
        )
        for each in cluster.workloads.values():
            each.failure = None
        cluster.settle()
        for _ in range(5):
            run = cluster.memory
            if run is None or not cluster.plan.under_way or cluster.plan.stalled:
                break
            kind = f"{run.canary}/{run.step}" if run.step else run.canary
            cluster.order("promote", kind)
            cluster.later(100).settle()
            cluster.annotations.clear()
            cluster.settle()
        run = cluster.memory
        if run is None:
            assert cluster.weights == {cluster.desired: 100}
        elif cluster.plan.under_way:
            assert cluster.plan.stalled, (run, cluster.replicas)
        else:
            assert cluster.weights == {run.stable: 100}
        cluster.later(100).settle()
        kept = {name for name in cluster.workloads if name not in cluster.weights}
        assert kept <= ({cluster.desired} if run is not None else set())


@pytest.mark.parametrize("examples", [150])
def test_a_rollout_keeps_its_word_whatever_happens(examples):
    run_state_machine_as_test(
        Rollouts,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
