"""Whose routes Envoy refuses is found out, and nobody else's are held back."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.support.gatewayobjects import model_deployment

from beamlit_operator.gateway.balancing import Balancing
from beamlit_operator.gateway.catalog import Deployment, parse_deployment
from beamlit_operator.gateway.names import DeploymentKey, Workspace
from beamlit_operator.gateway.trial import PARTS, RouteTrial


def key(number: int) -> DeploymentKey:
    return DeploymentKey(Workspace("demo"), f"m{number}")


def view(number: int, version: int = 1) -> Deployment:
    body = model_deployment(f"m{number}", model=f"m{number}", traffic={f"m{number}-{version}": 100})
    found = parse_deployment(body)
    assert found is not None
    return found


class Envoy:
    """Takes a table unless it has one of the bad views."""

    def __init__(self, *bad: Deployment) -> None:
        self.bad = list(bad)
        self.trial = RouteTrial()
        self.has: dict[DeploymentKey, Deployment] = {}
        self.tables = 0
        self.taken: list[dict[DeploymentKey, Deployment]] = []

    def offer(self, wanted: dict[DeploymentKey, Deployment]) -> None:
        again = True
        while again:
            views = self.trial.propose(wanted)
            self.tables += 1
            version = str(self.tables)
            self.trial.offered(version, views)
            refused = any(found in self.bad for found in views.values())
            if not refused:
                self.has = views
                self.taken.append(views)
            again = self.trial.settled(version, "bad route" if refused else "")


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_all_but_the_culprits_get_through(before: set[int], bad: set[int]) -> None:
    wanted = {key(number): view(number) for number in range(31)}
    envoy = Envoy(*(view(number) for number in bad))
    envoy.offer({key(number): view(number) for number in before - bad})
    envoy.offer(wanted)
    assert envoy.has == {k: v for k, v in wanted.items() if v not in envoy.bad}
    assert set(envoy.trial.culprits) == {key(number) for number in bad}
    assert envoy.tables <= 3 + PARTS + 10 * max(1, len(bad))


class EnvoyOfOneStore(Envoy):
    """Is sent a table only if it differs from the last one, as everything in a store."""

    def __init__(self, *bad: Deployment) -> None:
        super().__init__(*bad)
        self.table: dict[DeploymentKey, Deployment] = {}

    def offer(self, wanted: dict[DeploymentKey, Deployment]) -> None:
        while True:
            views = self.trial.propose(wanted)
            table = without_limits(views)
            if self.trial.offered(str(sorted(table.items())), views):
                continue
            if table == self.table:
                return
            self.table = table
            refused = any(found in self.bad for found in table.values())
            if not refused:
                self.has = table
            if not self.trial.settled(str(sorted(table.items())), "bad route" if refused else ""):
                return


def without_limits(views: dict[DeploymentKey, Deployment]) -> dict[DeploymentKey, Deployment]:
    """As a route table has them."""
    return {key: replace(found, balancing=Balancing()) for key, found in views.items()}


@given(
    st.lists(
        st.dictionaries(st.integers(0, 5), st.tuples(st.integers(1, 3), st.integers(0, 2))),
        max_size=6,
    )
)
def test_changes_that_no_route_tells_of_hold_nobody_back(
    steps: list[dict[int, tuple[int, int]]],
) -> None:
    envoy = EnvoyOfOneStore(*(view(number, 3) for number in range(6)))
    wanted = {key(number): view(number) for number in range(6)}
    envoy.offer(wanted)
    for step in steps:
        for number, (version, limit) in step.items():
            limited = replace(view(number, version), balancing=Balancing(max_concurrency=limit))
            wanted = {**wanted, key(number): limited}
        envoy.offer(wanted)
        good = {k: v for k, v in without_limits(wanted).items() if v not in envoy.bad}
        assert {k: envoy.has[k] for k in good} == good


@given(st.integers(3, 100), st.data())
def test_the_search_of_a_new_agent_takes_no_more_than_a_sixteenth_from_callers(
    count: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, count - 1))
    envoy = Envoy(view(bad))
    envoy.offer({key(number): view(number) for number in range(count)})
    assert set(envoy.trial.culprits) == {key(bad)}
    # Envoy may still serve all of them by a table of an earlier agent's.
    assert all(count - len(table) <= -(-count // PARTS) for table in envoy.taken)
    assert len(envoy.has) == count - 1


def test_a_culprit_keeps_its_last_good_routes_and_is_tried_again_when_it_changes() -> None:
    envoy = Envoy(view(1, 2))
    envoy.offer({key(1): view(1), key(2): view(2)})
    envoy.offer({key(1): view(1, 2), key(2): view(2, 2)})
    assert envoy.has == {key(1): view(1), key(2): view(2, 2)}
    assert envoy.trial.culprits == {key(1): "bad route"}
    envoy.offer({key(1): view(1, 2), key(2): view(2, 3)})
    assert envoy.has == {key(1): view(1), key(2): view(2, 3)}
    envoy.offer({key(1): view(1, 3), key(2): view(2, 3)})
    assert envoy.has == {key(1): view(1, 3), key(2): view(2, 3)}
    assert not envoy.trial.culprits


def test_a_culprit_that_is_deleted_is_forgotten() -> None:
    envoy = Envoy(view(1))
    envoy.offer({key(1): view(1), key(2): view(2)})
    envoy.offer({key(2): view(2)})
    assert not envoy.trial.culprits
    assert envoy.has == {key(2): view(2)}


def test_an_answer_to_a_table_that_a_newer_one_replaced_starts_no_search() -> None:
    trial = RouteTrial()
    views = trial.propose({key(1): view(1)})
    trial.offered("old", views)
    trial.offered("new", trial.propose({key(1): view(1), key(2): view(2)}))
    assert not trial.settled("old", "bad route")
    assert not trial.settled("new", "")
    assert not trial.culprits


def test_a_table_that_is_refused_for_nobodys_change_is_not_tried_again() -> None:
    trial = RouteTrial()
    trial.offered("1", trial.propose({key(1): view(1)}))
    trial.settled("1", "")
    trial.offered("2", trial.propose({key(1): view(1)}))
    assert not trial.settled("2", "too many of everything")
    assert not trial.culprits
