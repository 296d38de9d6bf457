"""How far a start is: the truth tables of what is seen and of what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.situations import NOW, Situation

from beamlit_operator.controllers.modeldeployment import decide
from beamlit_operator.controllers.progress import (
    REPEAT,
    SETTLE,
    STEP,
    Fetched,
    Progress,
    Telling,
    progress_of,
    told_next,
)
from beamlit_operator.kube import Json
from beamlit_operator.workloads.pods import FETCHING, SERVING

GIB = 2**30
RUNNING = {"running": {"startedAt": "2026-05-04T12:00:00Z"}}
WAITING = {"waiting": {"reason": "PodInitializing"}}
DONE = {"terminated": {"exitCode": 0}}


def pod(
    fetch: Json | None = None,
    serve: Json | None = None,
    *,
    node: str = "us",
    ready: bool = False,
    inits: tuple[tuple[str, Json], ...] = (),
    uid: str = "uid-1",
    **more: Any,
) -> Json:
    """A pod whose fetcher and server are in these states; None: nothing is known of them."""
    status: Json = {"conditions": [{"type": "Ready", "status": str(ready)}], **more}
    first = [{"name": name, "state": state} for name, state in inits]
    if fetch is not None:
        status["initContainerStatuses"] = [*first, {"name": FETCHING, "state": fetch}]
    if serve is not None:
        status["containerStatuses"] = [{"name": SERVING, **serve}]
    names = [name for name, _ in inits]
    spec: Json = {
        "initContainers": [
            *({"name": n, "image": "i", "restartPolicy": "Always"} for n in names if n == "proxy"),
            {"name": FETCHING, "image": "beamlit:1"},
        ],
        "containers": [{"name": SERVING, "image": "vllm:1"}],
        **({"nodeName": node} if node else {}),
    }
    return {"metadata": {"name": "p", "uid": uid}, "spec": spec, "status": status}


ON_THE_WAY_OUT = {**pod(RUNNING), "metadata": {"name": "p", "uid": "u", "deletionTimestamp": "x"}}
LOADS = "the model server runs and loads; it is not ready yet"
CRASHED = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {}}}

CASES: list[tuple[str, Json, tuple[str, str] | None]] = [
    ("is being deleted", ON_THE_WAY_OUT, None),
    ("is ready", pod(DONE, {"state": RUNNING}, ready=True), None),
    ("ended", pod(DONE, phase="Failed"), None),
    ("has no node", pod(node=""), ("Scheduling", "waiting for a node that can take the pod")),
    ("has only a node", pod(), ("Pulling", "preparing container model: image vllm:1")),
    ("is about to fetch", pod(WAITING), ("Pulling", "preparing container fetch: image beamlit:1")),
    ("fetches", pod(RUNNING, {"state": WAITING}), ("Fetching", "fetching the model's files")),
    (
        "runs another init container first",
        pod(WAITING, inits=(("prepare", RUNNING),)),
        ("Pulling", "init container prepare runs"),
    ),
    (
        "fetches beside a sidecar",
        pod(RUNNING, inits=(("proxy", RUNNING),)),
        ("Fetching", "fetching the model's files"),
    ),
    (
        "pulls its server's image",
        pod(DONE, {"state": WAITING}),
        ("Pulling", "preparing container model: image vllm:1"),
    ),
    ("loads", pod(DONE, {"state": RUNNING}), ("Loading", LOADS)),
    ("loads again after a crash", pod(DONE, CRASHED | {"lastState": DONE}), ("Loading", LOADS)),
]


@pytest.mark.parametrize(
    ("state", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_phase_of_a_pod_that(state: Json, expected: tuple[str, str] | None) -> None:
    found = progress_of([state], {})
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.phase == expected[0]
        assert found.message.startswith(expected[1])


@pytest.mark.parametrize(
    ("done", "total", "message"),
    [
        (1.2 * GIB, 4 * GIB, "fetching 1.2 of 4.0 GiB (30 %)"),
        (GIB // 2, GIB - 1, "fetching 512.0 of 1024.0 MiB (50 %)"),
        (4 * GIB - 1, 4 * GIB, "fetching 4.0 of 4.0 GiB (99 %)"),
        (0, 0, "fetching the model's files"),
    ],
)
def test_bytes_are_told_for_people(done: float, total: int, message: str) -> None:
    # 1.2 GiB is no whole number of bytes: the next one is meant.
    found = progress_of([pod(RUNNING)], {"uid-1": Fetched(int(done + 0.9), total)})
    assert found is not None
    assert found.message == message


def test_a_pod_that_waits_for_another_says_so_unless_the_other_is_of_the_same_revision() -> None:
    pods = [pod(RUNNING, uid="waits"), pod(RUNNING, uid="fetches")]
    waits = {"waits": Fetched(3, 10, elsewhere=True)}
    found = progress_of(pods[:1], waits)
    assert found is not None
    assert found.message == "waiting for another pod, which fetches 0.0 of 0.0 MiB (30 %)"
    found = progress_of(pods, {**waits, "fetches": Fetched(2, 10)})
    assert found is not None
    assert found.message.startswith("fetching")


def test_of_several_pods_the_furthest_counts() -> None:
    pods = [pod(node=""), pod(RUNNING, uid="slow"), pod(RUNNING, uid="fast"), pod()]
    found = progress_of(pods, {"slow": Fetched(1, 10), "fast": Fetched(9, 10)})
    assert found is not None
    assert found.fetched == Fetched(9, 10)
    assert progress_of([*pods, pod(DONE, {"state": RUNNING}, ready=True)], {}) is None


def fetching(part: float) -> Progress:
    return Progress("Fetching", f"{part:.3f}", Fetched(round(part * 1000), 1000))


@pytest.mark.parametrize(
    ("what", "told", "seen", "seconds", "is_told"),
    [
        ("a new phase", None, fetching(0.1), SETTLE - 0.1, False),
        ("a phase that lasts", None, fetching(0.1), SETTLE, True),
        ("the same again", fetching(0.1), fetching(0.1), REPEAT * 2, True),
        ("a large step", fetching(0.1), fetching(0.1 + STEP / 100), SETTLE, True),
        ("a small step", fetching(0.1), fetching(0.11), REPEAT - 1, False),
        ("a small step after long", fetching(0.1), fetching(0.11), REPEAT, True),
    ],
)
def test_what_is_told_lags_behind_what_is_seen(
    what: str, told: Progress | None, seen: Progress, seconds: float, is_told: bool
) -> None:
    telling, wait = told_next(Telling(seen, 0.0, told, 0.0), seen, seconds)
    assert (telling.told == seen) is is_told, what
    assert (wait is None) is is_told, what


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 40)), max_size=200))
def test_a_fetch_of_any_pace_is_told_in_few_steps(moves: list[tuple[float, int]]) -> None:
    telling, now, done, writes = None, 0.0, 0, 0
    for pause, step in moves:
        now, done = now + pause, min(done + step, 1000)
        before = telling.told if telling is not None else None
        telling, _ = told_next(telling, fetching(done / 1000), now)
        writes += telling.told != before
    assert writes <= 1 + 100 / STEP + now / REPEAT


def starting(
    progress: Progress | None = None, status: Json | None = None
) -> tuple[Json, list[str]]:
    """The status of a deployment whose revision starts, and the messages of its Events."""
    situation = Situation().environment().with_status(status)
    first = decide(situation.snapshot(), NOW)
    name = next(each["metadata"]["name"] for each in first.apply if each["kind"] == "Deployment")
    woken = situation.applied(first.apply).scaled(name, 1).snapshot()
    plan = decide(replace(woken, progress={name: progress} if progress else {}), NOW)
    assert plan.status is not None
    return plan.status, [event.message for event in plan.events]


def message_of(status: Json) -> str:
    return next(c["message"] for c in status["conditions"] if c["type"] == "Ready")


def test_a_start_is_told_in_the_condition_in_the_status_and_by_an_event_for_each_phase() -> None:
    begun, events = starting()
    assert begun["progress"]["phase"] == "Scheduling"
    assert message_of(begun) == begun["progress"]["message"]
    assert events == []
    seen = Progress("Fetching", "fetching 1.2 of 4.0 GiB (30 %)", Fetched(12, 40))
    told, events = starting(seen, begun)
    assert told["progress"]["fetchedBytes"] == 12
    assert told["progress"]["totalBytes"] == 40
    assert message_of(told) == seen.message
    assert events == ["Fetching: fetching 1.2 of 4.0 GiB (30 %)"]
    more = Progress("Fetching", "fetching 2.0 of 4.0 GiB (50 %)", Fetched(20, 40))
    again, events = starting(more, told)
    assert again["progress"]["fetchedBytes"] == 20
    assert events == []


def test_a_fresh_operator_takes_nothing_back_that_was_told() -> None:
    told, _ = starting(Progress("Fetching", "fetching 12 of 40", Fetched(12, 40)))
    again, events = starting(None, told)
    assert again["progress"] == told["progress"]
    assert message_of(again) == message_of(told)
    assert events == []
