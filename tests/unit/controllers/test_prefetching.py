"""Which Models are fetched ahead, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from tests.support.situations import metadata
from tests.unit.workloads.test_native import FILES, SETTINGS

from beamlit_operator.api import Model
from beamlit_operator.controllers.objects import Held, held
from beamlit_operator.controllers.prefetching import (
    AT_ONCE,
    FAILURES,
    Prefetching,
    Surroundings,
    decide,
)
from beamlit_operator.controllers.progress import Fetched, Progress
from beamlit_operator.kube import Json
from beamlit_operator.workloads.cache import Cache, place_of
from beamlit_operator.workloads.errands import folder_of, prefetching_pod
from beamlit_operator.workloads.files import ModelFiles

HERE = Cache("shared", usable=True)
FOLDER = folder_of(FILES, image=SETTINGS.image) or ""
NEWER = replace(FILES, revision="sha256:" + "cd" * 32)


def model(status: Json | None = None, *, prefetch: bool = True) -> Held[Model]:
    return held(
        Model,
        {
            "apiVersion": "beamlit.com/v1alpha1",
            "kind": "Model",
            "metadata": metadata("iris"),
            "spec": {"origin": {"s3": {"uri": "s3://models/iris"}}, "prefetch": prefetch},
            "status": {"prefetch": status} if status else {},
        },
    )


def told(phase: str, **more: Any) -> Json:
    return {
        "revision": FILES.revision,
        "phase": phase,
        "folder": FOLDER,
        "claimUid": "claim-1",
        **more,
    }


def pod(files: ModelFiles = FILES, *, node: str = "n", **status: Any) -> Json:
    made = prefetching_pod(
        model().raw, files, claim="shared", image=SETTINGS.image, outgoing=SETTINGS.outgoing
    )
    assert made is not None
    spec = {**made["spec"], "nodeName": node} if node else made["spec"]
    return {**made, "metadata": {**made["metadata"], "uid": "p"}, "spec": spec, "status": status}


def fetcher(**state: Any) -> Json:
    return {"initContainerStatuses": [{"name": "fetch", **state}]}


def ending(code: int) -> Json:
    return {"terminated": {"exitCode": code, "message": "NoObjects: the prefix is empty"}}


def decided(item: Held[Model], **around: Any) -> Prefetching:
    given = {"settings": SETTINGS, "cache": HERE, "claim_uid": "claim-1", "files": FILES}
    return decide(item, Surroundings(**{**given, **around}))


def phase(result: Prefetching) -> str:
    return str((result.status or {}).get("phase"))


def gone(result: Prefetching) -> int:
    return len(result.delete)


def test_the_pod_fetches_what_a_serving_pod_would_into_the_same_folder() -> None:
    made = decided(model()).create
    assert made is not None
    place = place_of(made["spec"])
    assert place is not None
    assert (place.claim, place.identity) == ("shared", FOLDER)
    assert made["spec"]["restartPolicy"] == "OnFailure"
    kubernetes_validate.validate(made, "1.34", strict=True)


CRASHING = fetcher(
    state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ending(1), restartCount=1
)
HOPELESS = fetcher(
    state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ending(1), restartCount=FAILURES
)


@pytest.mark.parametrize(
    ("old", "around", "phase_", "made", "deleted"),
    [
        (None, {"cache": None, "claim_uid": ""}, "Pending", 0, 0),
        (None, {"cache": None, "pods": [pod()]}, "Pending", 0, 1),
        (None, {"cache": Cache("shared", usable=False)}, "Pending", 0, 0),
        (None, {"files": None}, "Pending", 0, 0),
        (told("Done"), {"files": None}, "Done", 0, 0),
        (None, {}, "Pending", 1, 0),
        (None, {"others": AT_ONCE - 1}, "Pending", 1, 0),
        (None, {"others": AT_ONCE}, "Pending", 0, 0),
        (told("Done"), {}, "Done", 0, 0),
        (told("Done"), {"pods": [pod()]}, "Done", 0, 1),
        (told("Done"), {"claim_uid": "claim-2"}, "Pending", 1, 0),
        (told("Done"), {"files": NEWER}, "Pending", 1, 0),
        (None, {"pods": [pod(NEWER)]}, "Pending", 1, 1),
        (None, {"pods": [pod()]}, "Pending", 0, 0),
        (None, {"pods": [pod(**fetcher(state=ending(0)))]}, "Done", 0, 1),
        (None, {"pods": [pod(phase="Failed", reason="Evicted")]}, "Failed", 0, 1),
        (None, {"pods": [pod(**CRASHING)]}, "Failed", 0, 0),
        (None, {"pods": [pod(**HOPELESS)]}, "Failed", 0, 1),
        (told("Failed"), {"failed": True}, "Failed", 0, 0),
        (told("Failed"), {"failed": False}, "Pending", 1, 0),
        (told("Failed"), {"failed": True, "files": NEWER}, "Pending", 1, 0),
    ],
)
def test_the_table_of_the_module(
    old: Json | None, around: dict[str, Any], phase_: str, made: int, deleted: int
) -> None:
    result = decided(model(old), **around)
    assert phase(result) == phase_, result
    assert (result.create is not None) == bool(made)
    assert gone(result) == deleted


def test_a_model_that_is_not_prefetched_has_no_status_and_no_pod() -> None:
    result = decided(model(told("Fetching"), prefetch=False), pods=[pod()])
    assert result.status is None
    assert gone(result) == 1


def test_what_was_decided_is_decided_once() -> None:
    """Status and deletion are written, the events are not repeated."""
    first = decided(model(told("Fetching")), pods=[pod(**fetcher(state=ending(0)))])
    assert [each.reason for each in first.events] == ["Prefetched"]
    again = decided(model(first.status), pods=[])
    assert again == Prefetching(status=first.status)


def test_a_failure_is_told_once_with_the_fetchers_words() -> None:
    first = decided(model(told("Fetching")), pods=[pod(**CRASHING)])
    (event,) = first.events
    assert "NoObjects: the prefix is empty" in event.message
    assert "NoObjects: the prefix is empty" in (first.status or {})["message"]
    assert decided(model(first.status), pods=[pod(**CRASHING)]).events == ()


def test_how_far_it_is_comes_from_the_fetcher() -> None:
    seen = Progress("Fetching", "fetching 1.0 of 2.0 MiB (50 %)", Fetched(2**20, 2**21))
    result = decided(model(), pods=[pod()], progress=seen, tell_again=3.0)
    assert result.status is not None
    assert result.status["fetchedBytes"] == 2**20
    assert (phase(result), result.requeue_after) == ("Fetching", 3.0)


def test_what_no_node_takes_waits_and_has_not_failed() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    result = decided(model(), pods=[pod(node="", conditions=[unschedulable])])
    assert phase(result) == "Pending"
    assert "0/3 nodes" in (result.status or {})["message"]
    assert result.events == ()


def test_a_pod_on_its_way_out_is_left_alone() -> None:
    ending_pod = pod()
    ending_pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    result = decided(model(), pods=[ending_pod])
    assert gone(result) == 0
    assert result.create is not None
