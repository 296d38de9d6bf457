"""The incremental protocol, one message at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.gateway.ads import AdsStream, Settled
from beamlit_operator.gateway.protos import Cluster, DeltaRequest
from beamlit_operator.gateway.resources import Resource, ResourceStore, ResourceType

CLUSTER, ENDPOINTS = ResourceType.CLUSTER, ResourceType.ENDPOINTS
LISTENER, ROUTES = ResourceType.LISTENER, ResourceType.ROUTES


def resource(content: str) -> Resource:
    return Resource.of(Cluster(name=content))


class Envoy:
    """Speaks the client's side."""

    def __init__(self, store: ResourceStore) -> None:
        self.store = store
        self.stream = AdsStream(store)
        self.history: list[tuple[str, list[str], list[str]]] = []
        store.subscribe(self.stream.changed)

    def ask(self, type_: ResourceType, *names: str, **fields: Any) -> None:
        self.stream.receive(
            DeltaRequest(type_url=type_.value, resource_names_subscribe=names, **fields)
        )

    def answer(self, response: Any, *, refuse: str = "") -> Any:
        detail = {"error_detail": {"message": refuse}} if refuse else {}
        return self.stream.receive(
            DeltaRequest(type_url=response.type_url, response_nonce=response.nonce, **detail)
        )

    def sent(self) -> list[tuple[str, list[str], list[str]]]:
        """What comes now, not yet answered."""
        self.responses = self.stream.next_responses()
        found = [
            (
                ResourceType(r.type_url).name,
                [found.name for found in r.resources],
                list(r.removed_resources),
            )
            for r in self.responses
        ]
        self.history += found
        return found

    def accept_all(self) -> None:
        while self.sent():
            for response in self.responses:
                self.answer(response)


@pytest.fixture
def store() -> ResourceStore:
    store = ResourceStore()
    store.apply(
        {
            CLUSTER: {"a": resource("a")},
            ENDPOINTS: {"a": resource("a")},
            LISTENER: {"main": resource("main")},
            ROUTES: {"routes": resource("1")},
        }
    )
    return store


@pytest.fixture
def envoy(store: ResourceStore) -> Envoy:
    envoy = Envoy(store)
    envoy.ask(CLUSTER)
    envoy.ask(LISTENER)
    envoy.ask(ENDPOINTS, "a")
    envoy.ask(ROUTES, "routes")
    envoy.accept_all()
    assert envoy.stream.configured
    return envoy


def test_an_empty_store_is_answered_too() -> None:
    envoy = Envoy(ResourceStore())
    envoy.ask(CLUSTER)
    assert envoy.sent() == [("CLUSTER", [], [])]
    assert envoy.sent() == []


def test_only_what_changed_is_sent(envoy: Envoy, store: ResourceStore) -> None:
    store.apply({ENDPOINTS: {"a": resource("a2"), "other": resource("o")}})
    assert envoy.sent() == [("ENDPOINTS", ["a"], [])]
    assert envoy.sent() == []


def test_nothing_is_kept_of_clusters_that_came_and_went(envoy: Envoy, store: ResourceStore) -> None:
    for name in ("b", "c", "d"):
        store.apply({CLUSTER: {name: resource(name)}, ENDPOINTS: {name: resource(name)}})
        envoy.ask(ENDPOINTS, name)
        envoy.accept_all()
        assert envoy.stream.remembered == {"a", name}
        store.apply({CLUSTER: {name: None}, ENDPOINTS: {name: None}})
        envoy.accept_all()
        envoy.stream.receive(
            DeltaRequest(type_url=ENDPOINTS.value, resource_names_unsubscribe=[name])
        )
        assert envoy.stream.remembered == {"a"}
    assert envoy.stream.configured


def test_routes_wait_for_new_clusters_and_their_endpoints(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply(
        {
            CLUSTER: {"b": resource("b")},
            ENDPOINTS: {"b": resource("b")},
            ROUTES: {"routes": resource("2")},
        }
    )
    assert envoy.sent() == [("CLUSTER", ["b"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == []
    envoy.ask(ENDPOINTS, "b")
    assert envoy.sent() == [("ENDPOINTS", ["b"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == [("ROUTES", ["routes"], [])]


def reconnected(store: ResourceStore, *, endpoints: tuple[str, ...]) -> Envoy:
    """An Envoy that lost its agent while a cluster had no endpoints yet: all but its clusters are
    asked for."""
    envoy = Envoy(store)
    had = {"a": resource("a").version}
    envoy.ask(ENDPOINTS, *endpoints, initial_resource_versions=had)
    envoy.ask(LISTENER, initial_resource_versions={"main": resource("main").version})
    envoy.ask(ROUTES, "routes", initial_resource_versions={"routes": resource("0").version})
    return envoy


def test_routes_wait_for_an_envoy_that_has_not_asked_for_clusters_yet(store: ResourceStore) -> None:
    store.apply({CLUSTER: {"b": resource("b")}, ENDPOINTS: {"b": resource("b")}})
    envoy = reconnected(store, endpoints=("a",))
    envoy.accept_all()
    assert ("ROUTES", ["routes"], []) not in envoy.history
    envoy.ask(CLUSTER, initial_resource_versions={"a": resource("a").version})
    assert envoy.sent() == [("CLUSTER", ["b"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == []
    envoy.ask(ENDPOINTS, "b")
    assert envoy.sent() == [("ENDPOINTS", ["b"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == [("ROUTES", ["routes"], [])]


@pytest.mark.parametrize(
    "order", list(itertools.permutations((CLUSTER, ENDPOINTS, LISTENER, ROUTES)))
)
def test_in_whatever_order_types_are_asked_for_routes_come_after_their_clusters(
    store: ResourceStore, order: tuple[ResourceType, ...]
) -> None:
    store.apply({CLUSTER: {"b": resource("b")}, ENDPOINTS: {"b": resource("b")}})
    envoy = Envoy(store)
    had = {CLUSTER: "a", ENDPOINTS: "a", LISTENER: "main"}
    has: set[str] = set()
    asked: set[ResourceType] = set()

    def take_all() -> None:
        while found := envoy.sent():
            for (kind, names, _), response in zip(found, list(envoy.responses), strict=True):
                if kind == "ROUTES":
                    assert {"CLUSTER b", "ENDPOINTS b"} <= has
                has.update(f"{kind} {name}" for name in names)
                envoy.answer(response)
                if kind == "CLUSTER" and "b" in names and ENDPOINTS in asked:
                    envoy.ask(ENDPOINTS, "b")

    for type_ in order:
        asked.add(type_)
        versions = {had[type_]: resource(had[type_]).version} if type_ in had else {}
        names = {CLUSTER: (), LISTENER: (), ROUTES: ("routes",), ENDPOINTS: ("a",)}[type_]
        if type_ is ENDPOINTS and "CLUSTER b" in has:
            names = ("a", "b")
        envoy.ask(type_, *names, initial_resource_versions=versions)
        take_all()
    assert "ROUTES routes" in has


def test_an_envoy_that_waits_for_endpoints_nobody_has_is_told_before_its_routes_are(
    store: ResourceStore,
) -> None:
    # Until then it does not ask for clusters, and until it does it gets no routes.
    envoy = reconnected(store, endpoints=("a", "gone"))
    assert ("ENDPOINTS", [], ["gone"]) in envoy.sent()
    assert ("ROUTES", ["routes"], []) not in envoy.history
    envoy.ask(CLUSTER, initial_resource_versions={"a": resource("a").version})
    envoy.accept_all()
    assert ("ROUTES", ["routes"], []) in envoy.history


def test_an_envoy_that_does_not_ask_for_clusters_first_is_sent_endpoints_it_says_it_has(
    store: ResourceStore,
) -> None:
    # One of its clusters was made anew and waits for them: what it has was the old one's.
    envoy = reconnected(store, endpoints=("a",))
    assert ("ENDPOINTS", ["a"], []) in envoy.sent()


def test_a_cluster_goes_away_only_after_the_routes_left_it(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({CLUSTER: {"a": None}, ENDPOINTS: {"a": None}, ROUTES: {"routes": resource("2")}})
    assert envoy.sent() == [("ROUTES", ["routes"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == [("CLUSTER", [], ["a"]), ("ENDPOINTS", [], ["a"])]


def test_what_envoy_refused_is_reported_and_not_sent_again(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({ROUTES: {"routes": resource("bad")}})
    assert envoy.sent() == [("ROUTES", ["routes"], [])]
    settled = envoy.answer(envoy.responses[0], refuse="no such thing")
    assert settled.culprit
    assert (settled.type, list(settled.versions), settled.refused) == (
        ROUTES,
        ["routes"],
        "no such thing",
    )
    assert not envoy.stream.configured
    assert envoy.sent() == []
    store.apply({ROUTES: {"routes": resource("good")}})
    envoy.accept_all()
    assert envoy.stream.configured


def test_of_a_refused_response_all_but_the_culprits_get_through(
    envoy: Envoy, store: ResourceStore
) -> None:
    names = [f"c{number}" for number in range(9)]
    store.apply({CLUSTER: {name: resource(name) for name in names}})
    taken: set[str] = set()
    culprits: set[str] = set()
    while envoy.sent():
        for response in envoy.responses:
            sent = {found.name for found in response.resources}
            bad = sent & {"c2", "c7"}
            settled = envoy.answer(response, refuse="bad" if bad else "")
            if settled.culprit:
                culprits |= sent
            elif not bad:
                taken |= sent
    assert taken == set(names) - {"c2", "c7"}
    assert culprits == {"c2", "c7"}
    # Neither is sent again, and a good one after it is.
    store.apply({CLUSTER: {"c2": resource("mended"), "d": resource("d")}})
    assert envoy.sent() == [("CLUSTER", ["c2", "d"], [])]


def test_a_removal_in_a_refused_response_is_sent_again(envoy: Envoy, store: ResourceStore) -> None:
    store.apply({LISTENER: {"main": None, "bad": resource("bad")}})
    assert envoy.sent() == [("LISTENER", ["bad"], ["main"])]
    envoy.answer(envoy.responses[0], refuse="bad")
    assert envoy.sent() == [("LISTENER", ["bad"], []), ("LISTENER", [], ["main"])]


def test_a_refused_cluster_is_no_reason_not_to_serve_the_others(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({CLUSTER: {"b": resource("b")}})
    envoy.sent()
    envoy.answer(envoy.responses[0], refuse="bad cluster")
    envoy.accept_all()
    assert envoy.stream.configured


def test_routes_do_not_wait_for_a_cluster_that_was_refused(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({CLUSTER: {"b": resource("b")}, ROUTES: {"routes": resource("2")}})
    assert envoy.sent() == [("CLUSTER", ["b"], [])]
    envoy.answer(envoy.responses[0], refuse="bad cluster")
    assert envoy.sent() == [("ROUTES", ["routes"], [])]


def test_an_envoy_that_reconnects_gets_only_what_it_misses(store: ResourceStore) -> None:
    known = store[CLUSTER]["a"].version
    store.apply({CLUSTER: {"b": resource("b")}})
    envoy = Envoy(store)
    envoy.ask(CLUSTER, initial_resource_versions={"a": known, "gone": "1"})
    assert envoy.sent() == [("CLUSTER", ["b"], [])]
    envoy.answer(envoy.responses[0])
    # Requests may be on their way to a cluster of an earlier agent's time.
    assert envoy.stream.has_leftovers
    envoy.stream.drop_leftovers()
    assert envoy.sent() == [("CLUSTER", [], ["gone"])]


def test_what_an_envoy_that_reconnects_has_already_counts_as_taken(store: ResourceStore) -> None:
    stream, current = AdsStream(store), store[ROUTES]["routes"].version
    for versions, expected in (
        ({"routes": current, "gone": "1"}, Settled(ROUTES, {"routes": current})),
        ({"routes": "of the earlier agent"}, None),
    ):
        request = DeltaRequest(type_url=ROUTES.value, initial_resource_versions=versions)
        assert stream.receive(request) == expected


def test_routes_wait_for_a_cluster_that_was_warming_when_the_agent_restarted(
    store: ResourceStore,
) -> None:
    envoy = Envoy(store)
    envoy.ask(CLUSTER, initial_resource_versions={"a": store[CLUSTER]["a"].version})
    envoy.ask(LISTENER, initial_resource_versions={"main": store[LISTENER]["main"].version})
    envoy.ask(ROUTES, "routes", initial_resource_versions={"routes": "of the earlier agent"})
    assert envoy.sent() == [("CLUSTER", [], []), ("LISTENER", [], [])]
    for response in envoy.responses:
        envoy.answer(response)
    assert envoy.sent() == []
    assert envoy.stream.warming
    envoy.ask(ENDPOINTS, "a")
    assert envoy.sent() == [("ENDPOINTS", ["a"], [])]
    envoy.answer(envoy.responses[0])
    assert envoy.sent() == [("ROUTES", ["routes"], [])]


def test_a_name_that_is_asked_for_again_is_sent_again(envoy: Envoy) -> None:
    envoy.ask(ENDPOINTS, "a")
    assert envoy.sent() == [("ENDPOINTS", ["a"], [])]


def test_a_name_that_does_not_exist_is_said_not_to(envoy: Envoy) -> None:
    envoy.ask(ENDPOINTS, "nobody")
    assert envoy.sent() == [("ENDPOINTS", [], ["nobody"])]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40))
def test_which_clusters_are_warming_is_known_without_looking_at_all(
    steps: list[tuple[str, int]],
) -> None:
    """Kept from change to change; here it is computed anew after each."""
    store = ResourceStore()
    envoy = Envoy(store)
    for type_ in (CLUSTER, LISTENER):
        envoy.ask(type_)
    envoy.ask(ROUTES, "routes")
    unanswered: list[Any] = []
    for turn, (name, step) in enumerate(steps):
        if step == 0:
            store.apply({CLUSTER: {name: resource(name)}, ENDPOINTS: {name: resource(name)}})
        elif step == 1 and name in store[CLUSTER]:
            store.apply({CLUSTER: {name: None}, ENDPOINTS: {name: None}})
        elif step == 2:
            store.apply({ROUTES: {"routes": resource(str(turn))}})
            envoy.sent()
            unanswered += envoy.responses
        elif step == 3 and unanswered:
            envoy.answer(unanswered.pop(0))
        elif step == 4 and unanswered:
            envoy.answer(unanswered.pop(0), refuse="no")
        else:
            envoy.ask(ENDPOINTS, name)
            envoy.sent()
            unanswered += envoy.responses
        sent = envoy.stream._types[CLUSTER].sent.keys() & store[CLUSTER].keys()
        sent &= store[ENDPOINTS].keys()
        assert envoy.stream._warming == sent - envoy.stream.remembered


def test_one_route_table_at_a_time_and_then_the_newest(envoy: Envoy, store: ResourceStore) -> None:
    store.apply({ROUTES: {"routes": resource("2")}})
    assert envoy.sent() == [("ROUTES", ["routes"], [])]
    first = envoy.responses[0]
    for version in ("3", "4"):
        store.apply({ROUTES: {"routes": resource(version)}})
        assert envoy.sent() == []
    envoy.answer(first)
    assert envoy.sent() == [("ROUTES", ["routes"], [])]
    assert envoy.responses[0].resources[0].version == resource("4").version


def test_a_cluster_that_changed_gets_its_endpoints_once_more(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({CLUSTER: {"a": resource("another")}})
    assert envoy.sent() == [("CLUSTER", ["a"], []), ("ENDPOINTS", ["a"], [])]
    for response in envoy.responses:
        envoy.answer(response)
    assert envoy.stream.configured


def test_routes_do_not_wait_for_endpoints_of_a_cluster_that_has_none(
    envoy: Envoy, store: ResourceStore
) -> None:
    store.apply({CLUSTER: {"all": resource("all")}, ROUTES: {"routes": resource("2")}})
    envoy.accept_all()
    assert not envoy.stream.warming
    assert envoy.stream.configured


def test_endpoints_are_taken_once_envoy_has_said_so(envoy: Envoy, store: ResourceStore) -> None:
    assert envoy.stream.taken("a")
    assert not envoy.stream.taken("nobody's")
    store.apply({ENDPOINTS: {"a": resource("other pods")}})
    assert not envoy.stream.taken("a")
    assert envoy.sent() == [("ENDPOINTS", ["a"], [])]
    assert not envoy.stream.taken("a")
    for response in envoy.responses:
        envoy.answer(response)
    assert envoy.stream.taken("a")
