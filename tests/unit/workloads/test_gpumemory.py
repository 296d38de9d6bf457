"""How much memory of GPUs a model needs, which flavors hold it, and what becomes of the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy import Aspect, EffectivePolicy, Value, built_in
from beamlit_operator.policy.extending import extended
from beamlit_operator.workloads import ModelFiles, Refusal, Settings, Workload, workload
from beamlit_operator.workloads.gpumemory import (
    OVERHEAD_BYTES,
    Need,
    fit,
    gpu_memory_bytes,
    need,
    surely_bytes,
)

GIB = 2**30
FACTS_70B = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    task="generate",
    dtype="bfloat16",
    weight_bytes=141_107_412_992,
    context_length=131072,
    attention_heads=64,
    kv_values_per_token=2 * 80 * 8 * 128,
)
"""Llama 3.1 70B."""
FACTS_10B = FACTS_70B.model_copy(
    update={
        "weight_bytes": 20 * GIB,
        "attention_heads": 32,
        "kv_values_per_token": 2 * 32 * 8 * 128,
    }
)
"""One that an L4 holds and a T4 does not."""


def flavors(*names: str) -> tuple[Flavor, ...]:
    return tuple(Flavor(type="gpu", name=name) for name in names)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Need(20 * GIB, 2048 * 2 * 32 * 8 * 128 * 2)),
        ({"context_length": 512}, Need(20 * GIB, 512 * 2 * 32 * 8 * 128 * 2)),
        ({"context_length": None}, Need(20 * GIB, 2048 * 2 * 32 * 8 * 128 * 2)),
        ({"dtype": "float32"}, Need(10 * GIB, 2048 * 2 * 32 * 8 * 128 * 2)),
        ({"task": "embed"}, Need(20 * GIB, 0)),
        ({"kv_values_per_token": None}, Need(20 * GIB, 0)),
        ({"weight_bytes": None}, None),
        ({"weight_bytes": 0}, None),
        ({"format": "xgboost"}, None),
        ({"task": "adapt"}, None),
    ],
)
def test_a_model_needs_its_weights_and_a_small_cache(
    changed: dict[str, Any], expected: Need | None
) -> None:
    facts = FACTS_10B.model_copy(update=changed)
    assert need(facts) == expected
    assert gpu_memory_bytes(facts) == (
        None if expected is None else expected.weights + expected.cache + OVERHEAD_BYTES
    )
    assert need(None) is None


@pytest.mark.parametrize(
    ("facts", "asked", "gpus", "left"),
    [
        (FACTS_10B, ["l4"], 1, ["l4"]),
        (FACTS_10B, ["t4"], 1, []),
        (FACTS_10B, ["t4"], 2, ["t4"]),
        (FACTS_10B, ["t4", "l4"], 1, ["l4"]),
        (FACTS_70B, ["a100-80gb"], 1, []),
        (FACTS_70B, ["a100-80gb"], 2, ["a100-80gb"]),
        (FACTS_70B, ["h200"], 1, ["h200"]),
        (FACTS_70B, ["h100"], 2, ["h100"]),
        (FACTS_70B, ["b100"], 1, ["b100"]),
        (FACTS_70B, ["no-such-gpu"], 1, ["no-such-gpu"]),
        (FACTS_10B.model_copy(update={"weight_bytes": 50 * GIB}), ["a100"], 1, ["a100"]),
        (FACTS_10B.model_copy(update={"weight_bytes": 25 * GIB}), ["v100"], 1, ["v100"]),
        (FACTS_10B.model_copy(update={"weight_bytes": 35 * GIB}), ["v100"], 1, []),
        (ModelFacts(), ["t4"], 1, ["t4"]),
        (None, ["t4"], 1, ["t4"]),
    ],
)
def test_flavors_that_cannot_hold_the_model_are_left_out_and_unknown_ones_are_not(
    facts: ModelFacts | None, asked: list[str], gpus: int, left: list[str]
) -> None:
    found = fit(
        facts,
        flavors=flavors(*asked),
        container={"resources": {"limits": {"nvidia.com/gpu": gpus}}},
        allowed=None,
        catalogue=built_in(),
    )
    assert [each.name for each in found.flavors] == left
    assert (found.problem is None) == bool(left)


def test_the_message_has_what_is_needed_what_there_is_and_what_would_do() -> None:
    found = fit(
        FACTS_70B,
        flavors=flavors("tesla-t4"),
        container={},
        allowed=None,
        catalogue=built_in(),
    )
    assert found.problem == (
        "the model needs at least 132.5 GiB of GPU memory, 131.4 GiB of it for the weights, and "
        "1 x gpu:t4 has 16.0 GiB: use 1 x gpu:b200, or 1 x gpu:gb200, or 1 x gpu:b300, or "
        "1 x gpu:gb300 (the number goes into spec.runtime.resources.limits). Where the server "
        'keeps a part of it elsewhere, set the annotation beamlit.com/skip-memory-check: "true"'
    )


def test_the_page_shows_the_message_as_it_is() -> None:
    found = fit(FACTS_70B, flavors=flavors("t4"), container={}, allowed=None, catalogue=built_in())
    page = Path(__file__).parents[3] / "docs" / "detection.md"
    words = " ".join(page.read_text(encoding="utf-8").split())
    assert (found.problem or "").partition(". Where")[0] in words


def test_only_what_policies_allow_is_offered() -> None:
    for allowed, said in (
        ({Value("gpu", "t4"), Value("gpu", "a100-80gb")}, "use 2 x gpu:a100-80gb (the number"),
        ({Value("gpu", "t4")}, "none of the flavors that policies allow is known to hold it"),
        ({Value("gpu", "l40s"), Value("gpu", "t4")}, "use 4 x gpu:l40s (the"),
    ):
        found = fit(
            FACTS_70B,
            flavors=flavors("t4"),
            container={},
            allowed=frozenset(allowed),
            catalogue=built_in(),
        )
        assert said in (found.problem or "")


@pytest.mark.parametrize(
    ("heads", "said"), [(12, "use 4 x gpu:l40s (the"), (9, "none of the flavors that policies")]
)
def test_heads_are_shared_evenly_by_what_is_offered(heads: int, said: str) -> None:
    found = fit(
        FACTS_70B.model_copy(update={"attention_heads": heads}),
        flavors=flavors("t4"),
        container={},
        allowed=frozenset({Value("gpu", "l40s"), Value("gpu", "t4")}),
        catalogue=built_in(),
    )
    assert said in (found.problem or "")


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        (["l4"], 1, 24 * GIB),
        (["l4", "a100-80gb"], 1, 24 * GIB),
        (["t4", "a100-80gb"], 1, 80 * GIB),
        (["a100"], 1, 40 * GIB),
        (["b100"], 1, None),
        (["l4", "b100"], 1, None),
        (["t4"], 1, None),
        ([], 1, None),
    ],
)
def test_what_each_gpu_surely_has_is_the_least_of_those_that_hold_the_model(
    asked: list[str], gpus: int, expected: int | None
) -> None:
    found = surely_bytes(FACTS_10B, flavors(*asked), gpus=gpus, catalogue=built_in())
    assert found == expected


@given(st.integers(0, 2**60), st.integers(0, 2**40), st.integers(1, 64), st.integers(1, 300 * GIB))
def test_more_gpus_or_larger_ones_never_stop_holding_a_model(
    weights: int, cache: int, gpus: int, each: int
) -> None:
    wanted = Need(weights, cache)
    if each >= OVERHEAD_BYTES and wanted.fits(gpus, each=each):
        assert wanted.fits(gpus + 1, each=each)
        assert wanted.fits(gpus, each=each + 1)


# The deployment as a whole.

SETTINGS = Settings(image="registry.example/beamlit:1", gateway_service="gateway.example")
FILES = ModelFiles(
    uri="hf://meta/llama",
    revision="a" * 40,
    paths=("config.json", "model.safetensors"),
    bytes=20 * GIB,
    facts=FACTS_10B,
)
MODEL = Model.model_validate({"metadata": {"name": "llama", "namespace": "team"}})


def result(
    *names: str,
    runtime: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    allowed: frozenset[Value] | None = None,
    files: ModelFiles = FILES,
    settings: Settings = SETTINGS,
    live: dict[str, Any] | None = None,
) -> Workload | Refusal:
    metadata = {"name": "llama", "namespace": "team", "uid": "u", "annotations": annotations or {}}
    spec: dict[str, Any] = {"model": "llama"}
    if names:
        spec["flavors"] = [{"type": "gpu", "name": name} for name in names]
    if runtime:
        spec["runtime"] = runtime
    return workload(
        ModelDeployment.model_validate({"metadata": metadata, "spec": spec}),
        MODEL,
        policy=EffectivePolicy(location=Aspect(None, ()), flavor=Aspect(allowed, ())),
        files=files,
        settings=settings,
        live=live,
    )


def made(*names: str, **more: Any) -> Workload:
    found = result(*names, **more)
    assert isinstance(found, Workload), found
    return found


def affinity(found: Workload) -> str:
    return str(found.deployment["spec"]["template"]["spec"].get("affinity"))


def test_a_flavor_that_is_too_small_is_refused_before_anything_is_made() -> None:
    found = result("t4")
    assert isinstance(found, Refusal)
    assert found.reason == "FlavorTooSmall"
    assert "1 x gpu:t4 has 16.0 GiB" in found.message


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": {"beamlit.com/skip-memory-check": "true"}},
        {"runtime": {"type": "vllm", "args": ["/mnt/models", "--cpu-offload-gb", "8"]}},
        {"runtime": {"type": "vllm", "args": ["/mnt/models", "--quantization=fp8"]}},
        {"runtime": {"type": "llamacpp", "args": ["--model", "x"]}},
        {"runtime": {"image": "my/server:1"}},
        {"runtime": {"resources": {"limits": {"nvidia.com/gpu": 2}}}},
        {"files": replace(FILES, facts=None)},
        {"files": replace(FILES, facts=ModelFacts(architecture="LlamaForCausalLM"))},
    ],
)
def test_it_is_not_refused_where_it_may_fit_or_nobody_can_say(more: dict[str, Any]) -> None:
    assert isinstance(result("t4", **more), Workload)


@pytest.mark.parametrize(
    "annotations", [{"beamlit.com/skip-memory-check": "yes"}, {"other": "true"}]
)
def test_the_annotation_counts_only_as_it_is_written(annotations: dict[str, str]) -> None:
    assert isinstance(result("t4", annotations=annotations), Refusal)


def test_of_several_flavors_those_that_hold_the_model_are_used_and_the_name_stays() -> None:
    both = made("t4", "l4")
    assert "Tesla-T4" not in affinity(both)
    assert "NVIDIA-L4" in affinity(both)
    assert [each.name for each in both.flavors] == ["l4"]
    anywhere = made("t4", "l4", annotations={"beamlit.com/skip-memory-check": "true"})
    assert "Tesla-T4" in affinity(anywhere)
    assert both.revision != made("l4").revision


def test_gpus_that_only_policies_name_are_held_to_it_too() -> None:
    t4, l4 = Value("gpu", "t4"), Value("gpu", "l4")
    resources = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    narrowed = made(allowed=frozenset({t4, l4}), runtime=resources)
    assert "Tesla-T4" not in affinity(narrowed)
    refused = result(allowed=frozenset({t4}), runtime=resources)
    assert isinstance(refused, Refusal)
    assert refused.reason == "FlavorTooSmall"


def live(found: Workload, replicas: int) -> dict[str, Any]:
    spec = {**found.deployment["spec"], "replicas": replicas}
    return {found.revision: {**found.deployment, "spec": spec, "status": {"replicas": replicas}}}


def test_what_runs_stays_where_it_was_put() -> None:
    skip = {"beamlit.com/skip-memory-check": "true"}
    before = made("t4", "l4", annotations=skip)
    for replicas, same in ((1, True), (0, False)):
        after = made("t4", "l4", live=live(before, replicas))
        assert after.revision == before.revision
        assert (affinity(after) == affinity(before)) == same
    narrowed = made("t4", "l4")
    assert affinity(made("t4", "l4", live=live(narrowed, 1))) == affinity(narrowed)


def test_a_revision_that_exists_is_not_refused() -> None:
    before = made("t4", annotations={"beamlit.com/skip-memory-check": "true"})
    for replicas in (0, 1):
        after = made("t4", live=live(before, replicas))
        assert (after.revision, affinity(after)) == (before.revision, affinity(before))


def test_a_cluster_says_the_memory_of_its_own_gpus() -> None:
    document = """
gpu:
  rtx4090: {device: nvidia, memory: 24Gi, labels: {nvidia.com/gpu.product: [RTX-4090]}}
  gtx1650: {device: nvidia, memory: 4096Mi, labels: {nvidia.com/gpu.product: [GTX-1650]}}
  l4: {memory: 8Gi}
"""
    added = extended({"flavors.yaml": document})
    assert added.problems == ()
    settings = replace(SETTINGS, catalogue=added.catalogue)
    assert isinstance(result("rtx4090", settings=settings), Workload)
    assert isinstance(result("gtx1650", settings=settings), Refusal)
    assert isinstance(result("l4", settings=settings), Refusal)


@pytest.mark.parametrize("memory", ["24", "24GB", "-1Gi", "[]", "null", "{}", "0Gi"])
def test_memory_that_is_no_quantity_is_told_and_the_flavor_left_out(memory: str) -> None:
    added = extended({"flavors.yaml": f"gpu: {{x1: {{device: nvidia, memory: {memory}}}}}"})
    assert "x1" not in added.catalogue.gpus
    assert "memory must" in added.problems[0]


def test_the_memory_of_nearly_all_flavors_is_known() -> None:
    known = built_in()
    assert {name for name in known.gpus if known.gpu_memory(name) is None} == {"b100"}
    assert known.gpu_memory("a100") == (40 * GIB, 80 * GIB)
