"""What ``get``, the timeline and failure messages show for given objects."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from beamlit_operator.api import Condition, Model, ModelDeployment
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.model import PrefetchStatus
from beamlit_operator.api.summary import facts_line, size
from beamlit_operator.cli.calling import latencies_of
from beamlit_operator.cli.coldstart import ColdStart, pod_steps, timeline
from beamlit_operator.cli.invoke import with_path
from beamlit_operator.cli.listing import deployments_table, models_table, short_version
from beamlit_operator.cli.scene import pod_state
from beamlit_operator.cli.status import conditions_table, prefetch_text
from beamlit_operator.kube import Change, ObjectKey

DIGEST = "sha256:" + "0123456789abcdef" * 4


def rendered(what: RenderableType) -> list[str]:
    out = StringIO()
    Console(file=out, width=160).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def model(name: str) -> Model:
    return Model.model_validate(
        {
            "metadata": {"name": name, "namespace": "default"},
            "status": {
                "phase": "Deployed",
                "origin": {
                    "uri": f"s3://models/{name}",
                    "revision": DIGEST,
                    "files": 2,
                    "bytes": 9,
                },
            },
        }
    )


def deployment(model: str, environment: str, **status: Any) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": f"{model}-{environment}", "namespace": "default"},
            "spec": {"model": model, "environment": environment},
            "status": status,
        }
    )


def revision(version: str, traffic: int) -> dict[str, Any]:
    return {"name": "r", "version": version, "replicas": 1, "readyReplicas": 1, "traffic": traffic}


def test_what_a_model_s_files_say_is_one_line() -> None:
    facts = ModelFacts(
        format="safetensors",
        architecture="LlamaForCausalLM",
        task="generate",
        parameters=8_030_261_248,
        weight_bytes=16_060_522_496,
        dtype="bfloat16",
        context_length=131072,
    )
    assert facts_line(facts) == (
        "LlamaForCausalLM, generate, 8.03 billion parameters, 15.0 GiB of safetensors, bfloat16, "
        "131072 tokens"
    )
    assert facts_line(ModelFacts()) == ""
    assert facts_line(ModelFacts(format="xgboost", incomplete="x")) == (
        "xgboost, not all is known: x"
    )


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (1_100_048_384, "1.10 billion parameters"),
        (22_713_216, "22.71 million parameters"),
        (266, "266 parameters"),
    ],
)
def test_small_models_have_millions_of_parameters_and_not_none(parameters: int, told: str) -> None:
    assert facts_line(ModelFacts(parameters=parameters)) == told


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (900, "900 bytes"),
        (1693, "1.7 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (301_811_200, "287.8 MiB"),
        (2**30, "1.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_sizes_are_told_in_the_largest_unit_that_fits(count: int, told: str) -> None:
    assert size(count) == told


def test_a_status_tells_how_far_a_prefetch_is() -> None:
    waits = PrefetchStatus(phase="Pending", message="no cache is set up")
    assert prefetch_text(waits).plain == "prefetch  Pending: no cache is set up"


def test_the_same_message_is_told_once() -> None:
    seconds = "2026-01-01T00:00:00Z"
    conditions = [
        Condition.model_validate(
            {"type": t, "status": s, "reason": "R", "message": m, "lastTransitionTime": seconds}
        )
        for t, s, m in (
            ("Ready", "False", "it fails"),
            ("Stalled", "True", "it fails"),
            ("PolicyOverridden", "True", "another"),
        )
    ]
    shown = rendered(conditions_table(conditions))
    assert [line.split()[3:] for line in shown[1:]] == [
        ["it", "fails"],
        ["as", "above"],
        ["another"],
    ]


def test_models_show_their_version_in_every_environment() -> None:
    table = models_table(
        [model("wine"), model("iris")],
        [
            deployment(
                "iris", "production", phase="Idle", revisions=[revision("b", 0), revision("a", 100)]
            ),
            deployment("iris", "development", revisions=[revision(DIGEST, 100)]),
        ],
    )
    head, iris, wine = rendered(table)
    assert head.split() == ["MODEL", "PHASE", "ORIGIN", "DEVELOPMENT", "PRODUCTION"]
    assert iris.split() == ["iris", "Deployed", "s3://models/iris", "0123456789ab", "a", "Idle"]
    assert wine.split() == ["wine", "Deployed", "s3://models/wine", "-", "-"]


def test_while_a_rollout_goes_on_the_share_of_each_version_is_shown() -> None:
    def cell(*revisions: dict[str, Any]) -> str:
        there = deployment("iris", "production", phase="Active", revisions=list(revisions))
        return " ".join(rendered(models_table([model("iris")], [there]))[1].split()[3:])

    assert cell(revision("v2", 10), revision("v1", 90)) == "v1 90 %, v2 10 % Active"
    assert cell(revision("v2", 0), revision("v1", 100)) == "v1 Active"
    one, two = ({**revision("v1", share), "name": f"iris-{share}"} for share in (25, 75))
    assert cell(one, two) == "75 75 %, 25 25 % Active"


def test_a_deployment_without_a_version_tells_why() -> None:
    def cell(**status: Any) -> str:
        there = deployment("iris", "production", **status)
        return " ".join(rendered(models_table([model("iris")], [there]))[1].split()[3:])

    def ready(reason: str) -> list[dict[str, str]]:
        when = "2026-01-01T00:00:00Z"
        told = {"type": "Ready", "status": "False", "reason": reason, "message": "because"}
        return [told | {"lastTransitionTime": when}]

    assert cell(phase="Failed", conditions=ready("FlavorTooSmall")) == "Failed (FlavorTooSmall)"
    deactivated = cell(
        phase="Deactivated", conditions=ready("Deactivated"), revisions=[revision("v1", 0)]
    )
    assert deactivated == "Deactivated"
    assert cell(conditions=ready("Resolving")) == "- (Resolving)"
    assert cell() == "-"


def test_a_deployment_without_status_is_shown_as_unknown() -> None:
    _, line = rendered(deployments_table([deployment("iris", "production")]))
    assert line.split() == ["iris-production", "iris", "production", "Unknown", "-", "0/0", "-"]


@pytest.mark.parametrize(
    ("version", "shown"),
    [(DIGEST, "0123456789ab"), ("a" * 40, "a" * 12), ("v1.2", "v1.2"), ("main", "main")],
)
def test_digests_are_cut_and_names_are_not(version: str, shown: str) -> None:
    assert short_version(version) == shown


def test_a_path_goes_before_the_query() -> None:
    url = "http://gw/default/models/iris?environment=dev"
    assert with_path(url, "/v2/x") == "http://gw/default/models/iris/v2/x?environment=dev"
    assert with_path("http://gw/default/models/iris/", "v2") == "http://gw/default/models/iris/v2"


def pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "us-east"},
        "status": status,
    }


FETCHED = {"initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}]}
RUNNING = {"containerStatuses": [{"name": "model", "state": {"running": {}}}]}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("status", "last"),
    [
        ({}, "pod scheduled to us-east"),
        (
            {"initContainerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]},
            "pod scheduled to us-east",
        ),
        (FETCHED, "model files fetched"),
        ({**FETCHED, **RUNNING}, "model server started"),
        ({**FETCHED, **RUNNING, **READY}, "model server ready"),
    ],
)
def test_a_pod_has_behind_it_what_its_status_says(status: dict[str, Any], last: str) -> None:
    assert pod_steps(pod(**status))[-1] == last


def test_the_timeline_keeps_the_order_of_arrival_and_counts_each_step_once() -> None:
    start = ColdStart()
    start.mark("request in")
    key = ObjectKey("default", "p")
    start.follow_deployment(Change(key, None, {"metadata": {}, "spec": {"replicas": 0}}))
    start.follow_deployment(Change(key, None, {"metadata": {}, "spec": {"replicas": 1}}))
    for status in ({}, FETCHED, {**FETCHED, **RUNNING, **READY}):
        start.follow_pod(Change(key, None, pod(**status)))
    start.mark("answered")
    lines = rendered(timeline(start))
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "request in",
        "scaled up from zero",
        "pod created",
        "pod scheduled to us-east",
        "model files fetched",
        "model server started",
        "model server ready",
        "answered",
    ]
    assert "0 ms" in lines[1]


def test_a_pod_that_ends_is_not_part_of_a_start() -> None:
    start = ColdStart()
    ending = pod(**READY)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    start.follow_pod(Change(ObjectKey("default", "p"), None, ending))
    assert start.seen == {}


def test_a_failed_pod_says_why() -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    status = {
        "phase": "Running",
        "containerStatuses": [{"name": "model", "state": {"waiting": waiting}}],
    }
    assert pod_state(pod(**status)) == "Running; model: CrashLoopBackOff back-off 10s"


def test_latencies_are_the_median_and_the_95th_percentile() -> None:
    found = latencies_of([0.001] * 95 + [0.1] * 5)
    assert (found.calls, found.median) == (100, 0.001)
    assert found.p95 > 0.05


def test_a_start_that_takes_long_shows_how_far_it_is() -> None:
    progress = {"phase": "Fetching", "message": "m", "since": "2026-05-04T12:00:00Z"}
    bytes_ = {"fetchedBytes": 30, "totalBytes": 100}
    table = deployments_table(
        [
            deployment("iris", "production", phase="Pending", progress={**progress, **bytes_}),
            deployment("iris", "staging", phase="Pending", progress=progress),
        ]
    )
    _, known, unknown = rendered(table)
    assert "Pending (Fetching 30 %)" in known
    assert "Pending (Fetching)" in unknown
