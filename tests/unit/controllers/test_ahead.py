"""A thousand Models that are to be fetched ahead: two at a time, and nobody looks for nothing."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from tests.support.situations import metadata
from tests.unit.workloads.test_native import FILES, SETTINGS

from beamlit_operator.api import Model
from beamlit_operator.controllers.ahead import Ahead
from beamlit_operator.controllers.caches import Errands, ended
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held, held
from beamlit_operator.controllers.prefetching import AT_ONCE
from beamlit_operator.controllers.starts import Starts
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.workloads.cache import Cache

MODELS = 1000
TEAM = Workspace("team")


class _Claims:
    def of(self, _: str) -> Cache:
        return Cache("shared", usable=True)

    def uid(self, _: str) -> str:
        return "claim-1"


class Team:
    """A workspace, and what an operator does in it."""

    def __init__(self, count: int, *, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused
        self.queue: deque[Key] = deque()
        self.looks = self.most = 0
        self.errands = Errands(
            cast("Any", None),
            namespaces=(),
            on_change=lambda _: None,
            on_end=lambda *_: None,
        )
        self.ahead = Ahead(
            cast("Any", _Claims()),
            self.errands,
            Starts(lambda _: None),
            enqueue=self.add,
            clock=lambda: 0.0,
        )
        self.models = {Key(Kind.MODEL, TEAM, f"m-{n}"): self._model(n) for n in range(count)}
        self.fetched: list[str] = []
        for key in self.models:
            self.add(key)

    def _model(self, number: int, status: Json | None = None) -> Held[Model]:
        body = {
            "apiVersion": "beamlit.com/v1alpha1",
            "kind": "Model",
            "metadata": {**metadata(f"m-{number}"), "namespace": TEAM, "uid": f"uid-{number}"},
            "spec": {"origin": {"s3": {"uri": f"s3://models/{number}"}}, "prefetch": True},
            "status": {"prefetch": status} if status else {},
        }
        return held(Model, body)

    def add(self, key: Key) -> None:
        if key not in self.queue:
            self.queue.append(key)

    def work(self) -> None:
        """Looks at all that is to be looked at."""
        while self.queue:
            key = self.queue.popleft()
            self.looks += 1
            if key not in self.models:
                self.ahead.forget(key)
                continue
            model = self.models[key]
            found = self.ahead.look(key, model, FILES, SETTINGS)
            if found.status is not None:
                self.models[key] = self._model(int(key.name[2:]), found.status)
            if found.create is not None:
                if key.name in self.refused:
                    self.ahead.refused(key)
                    continue
                name = {"name": f"fetch-{key.name}", "namespace": TEAM, "uid": f"pod-{key.name}"}
                pod = {**found.create, "metadata": {**found.create["metadata"], **name}}
                self.ahead.made(pod)
                self.most = max(self.most, len(self.running()))

    def running(self) -> list[Json]:
        return [pod for pod in self.errands._pods.values() if ended(pod) is None]

    def end_one(self) -> None:
        """A pod is done: it changes, and is removed."""
        pod = self.running()[0]
        place = ObjectKey(TEAM, pod["metadata"]["name"])
        name = place.name.removeprefix("fetch-")
        pod["status"] = {"phase": "Succeeded"}
        self.ahead.ended(TEAM)
        self.add(Key(Kind.MODEL, TEAM, name))
        self.work()
        del self.errands._pods[place]
        self.fetched.append(name)
        self.ahead.ended(TEAM)
        self.add(Key(Kind.MODEL, TEAM, name))
        self.work()


def test_a_thousand_models_are_fetched_two_at_a_time_with_a_few_looks_for_each() -> None:
    team = Team(MODELS)
    team.work()
    while team.running():
        team.end_one()
    assert sorted(team.fetched) == sorted(key.name for key in team.models)
    assert team.most == AT_ONCE
    assert team.looks <= 6 * MODELS


def test_what_goes_while_it_waits_leaves_its_turn_to_the_next() -> None:
    team = Team(10)
    team.work()
    gone = [key for key in team.models if key.name in ("m-2", "m-3")]
    for key in gone:
        del team.models[key]
    while team.running():
        team.end_one()
    assert len(team.fetched) == 8


def test_a_pod_that_is_refused_leaves_its_turn_to_the_next() -> None:
    # So many in a row that no pod is left whose end would be a turn for the others.
    team = Team(10, refused=tuple(f"m-{number}" for number in range(2, 8)))
    team.work()
    while team.running():
        team.end_one()
    assert sorted(team.fetched) == ["m-0", "m-1", "m-8", "m-9"]
