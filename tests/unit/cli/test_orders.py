"""Which orders make sense when: the table in `cli/orders`."""

from __future__ import annotations

from typing import get_args

import pytest

from beamlit_operator.api import ModelDeployment
from beamlit_operator.cli.orders import OrderRefusedError, Verb, orders

PROMOTE, PAUSE, ABORT = (f"beamlit.com/rollout-{verb}" for verb in ("promote", "pause", "abort"))
HELD = {PAUSE: "iris-2"}


def deployment(
    phase: str | None, annotations: dict[str, str] | None = None, *, used: list[str] | None = None
) -> ModelDeployment:
    told = {
        "phase": phase,
        "stable": "iris-1",
        "canary": "iris-2",
        "step": 2,
        "steps": 3,
        "weight": 50,
        "startedAt": "2026-05-04T12:00:00Z",
        "since": "2026-05-04T12:00:00Z",
        "message": "as it is",
    }
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": "iris", "annotations": annotations or {}},
            "spec": {"model": "iris"},
            "status": {"usedOrders": used or [], **({"rollout": told} if phase else {})},
        }
    )


@pytest.mark.parametrize(
    ("verb", "phase", "annotations", "given"),
    [
        ("promote", "Paused", {}, {PROMOTE: "iris-2/2"}),
        ("promote --full", "Paused", {}, {PROMOTE: "iris-2"}),
        ("promote --full", "Paused", HELD, {PROMOTE: "iris-2", PAUSE: None}),
        ("promote --full", "Progressing", {}, {PROMOTE: "iris-2"}),
        ("promote --full", "Analyzing", {}, {PROMOTE: "iris-2"}),
        ("promote --full", "Waiting", {}, {PROMOTE: "iris-2"}),
        ("pause", "Waiting", {}, {PAUSE: "iris-2"}),
        ("pause", "Progressing", {}, {PAUSE: "iris-2"}),
        ("pause", "Proving", {}, {PAUSE: "iris-2"}),
        ("pause", "Paused", {}, {PAUSE: "iris-2"}),
        ("pause", "Analyzing", {PAUSE: "iris-of-before"}, {PAUSE: "iris-2"}),
        ("resume", "Paused", HELD, {PAUSE: None}),
        ("resume", "Progressing", HELD, {PAUSE: None}),
        ("abort", "Progressing", {}, {ABORT: "iris-2"}),
        ("abort", "Paused", {}, {ABORT: "iris-2"}),
        ("abort", "Paused", HELD, {ABORT: "iris-2"}),
        ("abort", "Proving", {}, {ABORT: "iris-2"}),
    ],
)
def test_an_order_names_the_revision_it_is_for(
    verb: Verb, phase: str, annotations: dict[str, str], given: dict[str, str | None]
) -> None:
    assert orders(deployment(phase, annotations), verb).annotations == given


@pytest.mark.parametrize(
    ("verb", "phase", "annotations", "says"),
    [
        ("promote", "Progressing", {}, "does not wait for anybody"),
        ("promote", "Analyzing", {}, "does not wait for anybody"),
        ("promote", "Paused", HELD, "`beamlit rollout resume iris`"),
        ("pause", "Paused", HELD, "is paused already"),
        ("resume", "Progressing", {}, "is not paused"),
        ("resume", "Progressing", {PAUSE: "iris-of-before"}, "is not paused"),
        ("resume", "Paused", {}, "waits for you"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(
    verb: Verb, phase: str, annotations: dict[str, str], says: str
) -> None:
    with pytest.raises(OrderRefusedError, match=says):
        orders(deployment(phase, annotations), verb)


@pytest.mark.parametrize("verb", get_args(Verb))
@pytest.mark.parametrize(
    ("phase", "says"),
    [
        (None, "iris has no rollout under way"),
        ("Aborted", "iris-2 was aborted and is not under way"),
        ("RolledBack", "iris-2 was rolled back by its analysis"),
        ("Failed", "iris-2 failed to start"),
    ],
)
def test_without_a_rollout_under_way_every_order_is_refused(
    verb: Verb, phase: str | None, says: str
) -> None:
    with pytest.raises(OrderRefusedError, match=says):
        orders(deployment(phase, HELD), verb)


@pytest.mark.parametrize(
    ("verb", "annotations", "used", "stale"),
    [
        ("abort", {ABORT: "iris-2"}, [f"{ABORT}=iris-2"], (ABORT,)),
        ("promote", {PROMOTE: "iris-2/2"}, [f"{ABORT}=iris-2", f"{PROMOTE}=iris-2/2"], (PROMOTE,)),
        # It was given a moment ago: giving it again changes nothing.
        ("abort", {ABORT: "iris-2"}, [], ()),
        ("abort", {ABORT: "iris-1"}, [f"{ABORT}=iris-1"], ()),
        ("promote", {PROMOTE: "iris-2"}, [f"{PROMOTE}=iris-2"], ()),
        ("abort", {}, [], ()),
    ],
)
def test_an_order_that_stands_there_and_does_not_count_has_to_go_first(
    verb: Verb, annotations: dict[str, str], used: list[str], stale: tuple[str, ...]
) -> None:
    there = deployment("Paused", annotations, used=used)
    assert orders(there, verb).stale == stale
