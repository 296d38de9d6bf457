"""A flavor whose GPUs cannot hold the model is told before anything starts."""

from __future__ import annotations

import yaml

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.kube import DEPLOYMENTS, MODEL_DEPLOYMENTS, MODELS, NODES

from .conftest import TEAM, Lab
from .test_operator import MODEL, SECRET

LLAMA = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    model_type="llama",
    task="generate",
    dtype="bfloat16",
    weight_bytes=30 * 2**30,
    context_length=8192,
    attention_heads=32,
    kv_values_per_token=65536,
)
ENVIRONMENT = """
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {policies: []}
"""
GPU_NODE = """
apiVersion: v1
kind: Node
metadata: {name: GPU, labels: {kubernetes.io/arch: amd64, beamlit.com/flavor: GPU}}
"""


def asking(flavor: str, **metadata: object) -> str:
    return "\n" + yaml.safe_dump(
        {
            "apiVersion": "beamlit.com/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "iris", **metadata},
            "spec": {"model": "iris", "flavors": [{"type": "gpu", "name": flavor}]},
        }
    )


async def test_a_flavor_that_is_too_small_starts_nothing_until_it_is_changed(lab: Lab) -> None:
    lab.store.paths, lab.store.facts = ("config.json", "model.safetensors"), LLAMA
    for name in ("t4", "a100-40gb"):
        await lab.client.create(NODES, yaml.safe_load(GPU_NODE.replace("GPU", name)))
    operator = await lab.start_operator()
    assert operator is not None
    await lab.apply("---".join((SECRET, ENVIRONMENT, MODEL, asking("t4"))))
    await lab.until_ready("FlavorTooSmall")
    status_, _, message = await lab.ready(MODEL_DEPLOYMENTS, "iris")
    assert status_ == "False"
    assert "the model needs at least 30.8 GiB of GPU memory" in message
    assert "1 x gpu:t4 has 16.0 GiB: use 4 x gpu:t4, or 1 x gpu:a100-40gb" in message
    assert (await lab.client.list(DEPLOYMENTS, TEAM)).items == []

    model = await lab.get(MODELS, "iris")
    assert model is not None
    status = model["status"]
    assert status["facts"] == LLAMA.to_wire()
    assert status["gpuMemoryBytes"] == 30 * 2**30 + 2048 * 65536 * 2 + 512 * 2**20
    assert status["suggestedRuntime"] == {
        "type": "vllm",
        "because": "config.json names LlamaForCausalLM",
    }

    await lab.apply(asking("a100-40gb"))
    await lab.until_ready("Idle")
    assert len((await lab.client.list(DEPLOYMENTS, TEAM)).items) == 1

    # What is there stays when the spec asks for what cannot be.
    await lab.apply(asking("t4"))
    await lab.until_ready("FlavorTooSmall")
    assert len((await lab.client.list(DEPLOYMENTS, TEAM)).items) == 1
    await lab.apply(asking("t4", annotations={"beamlit.com/skip-memory-check": "true"}))
    await lab.until_ready("RollingOut")
    assert len((await lab.client.list(DEPLOYMENTS, TEAM)).items) == 2


async def test_an_operator_that_starts_again_reads_no_files_again(lab: Lab) -> None:
    lab.store.paths, lab.store.facts = ("config.json", "model.safetensors"), LLAMA
    await lab.start_operator()
    await lab.apply("---".join((SECRET, ENVIRONMENT, MODEL)))

    async def known() -> bool:
        model = await lab.get(MODELS, "iris")
        return model is not None and "facts" in model.get("status", {})

    await lab.until(known, "the model's facts are known")
    assert lab.store.inspections == 1
    looks = lab.store.looks
    await lab.stop_operator()
    await lab.start_operator()

    async def looked() -> bool:
        return lab.store.looks > looks

    await lab.until(looked, "the origin is looked at again")
    await lab.apply(asking("a100-40gb"))
    await lab.until_ready("NoPlacement")
    assert lab.store.inspections == 1
    model = await lab.get(MODELS, "iris")
    assert model is not None
    assert model["status"]["facts"] == LLAMA.to_wire()
