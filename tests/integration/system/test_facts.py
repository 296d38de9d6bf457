"""What a Model's files say, on its status: read from a real store by a real operator."""

import asyncio
import json
import time

from tests.support.flakystore import FlakyStore
from tests.support.modelfiles import LLAMA, config, gguf, safetensors

from beamlit_operator.kube import DEPLOYMENTS, MODELS

from .conftest import SETTLED, ready


async def told(workspace, name):
    """The Model's status once its origin was found."""
    deadline = time.monotonic() + SETTLED
    while True:
        model = await workspace.client.get(MODELS, name, workspace.name)
        if ready(model)["reason"] == "OriginResolved":
            return model["status"]
        assert time.monotonic() < deadline, f"{model}\n{workspace.stack.logs()}"
        await asyncio.sleep(0.05)


async def test_models_are_described_by_their_own_files(workspace):
    weights = safetensors({"w": ("BF16", [1000, 64]), "norm": ("F32", [64])})
    repositories = {
        "llama": {"config.json": config(LLAMA), "model.safetensors": weights},
        "small": {"small-Q4_K_M.gguf": gguf({"general.architecture": "qwen2"})},
        "trees": {"model.bst": b"tree\nversion=v4\n"},
        "adapter": {"adapter_config.json": b'{"base_model_name_or_path": "meta/llama"}'},
        "broken": {"config.json": b"{" * 5000, "model.safetensors": b"\xff" * 100},
    }
    await workspace.secret()
    store = workspace.stack.s3()
    for name, files in repositories.items():
        for path, content in files.items():
            key = f"{workspace.name}/{name}/{path}"
            store.put_object(Bucket="models", Key=key, Body=content)
        await workspace.model(name, uri=f"s3://models/{workspace.name}/{name}")

    llama = await told(workspace, "llama")
    assert llama["suggestedRuntime"] == {
        "type": "vllm",
        "because": "config.json names LlamaForCausalLM",
    }
    assert llama["facts"]["parameters"] == 64_064
    assert llama["facts"]["weightBytes"] == 2 * 64_000 + 4 * 64
    assert llama["gpuMemoryBytes"] > llama["facts"]["weightBytes"]

    small = await told(workspace, "small")
    assert small["suggestedRuntime"]["type"] == "llamacpp"
    assert (small["facts"]["architecture"], small["facts"]["quantization"]) == ("qwen2", "Q4_K_M")

    trees = await told(workspace, "trees")
    assert trees["suggestedRuntime"]["because"] == "the origin holds model.bst, written by LightGBM"
    assert "gpuMemoryBytes" not in trees

    adapter = await told(workspace, "adapter")
    assert "suggestedRuntime" not in adapter
    assert "an adapter of meta/llama: merge the two" in ready({"status": adapter})["message"]

    broken = await told(workspace, "broken")
    assert broken["suggestedRuntime"]["type"] == "vllm"
    assert "config.json is not readable JSON" in broken["facts"]["incomplete"]
    assert "model.safetensors does not begin as" in broken["facts"]["incomplete"]


async def revisions(workspace):
    """The name of each revision, and what its server is told."""
    found = (await workspace.client.list(DEPLOYMENTS, workspace.name)).items
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["args"]
        for each in found
    }


async def test_a_store_that_lets_nothing_be_read_starts_no_rollout_after_a_restart(workspace):
    header = {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.block_count": 32,
        "llama.embedding_length": 4096,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    }
    store = workspace.stack.s3()
    key = f"{workspace.name}/m-Q4_K_M.gguf"
    store.put_object(Bucket="models", Key=key, Body=gguf(header))
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.secret()

    def refuse(_):
        raise RuntimeError("objects cannot be read")

    with FlakyStore(workspace.stack.store) as flaky:
        uri = f"s3://models/{workspace.name}"
        await workspace.model("chat", uri=uri, store=flaky.endpoint)
        limited = {"type": "llamacpp", "resources": {"limits": {"memory": "4Gi"}}}
        await workspace.apply("ModelDeployment", "chat", {"model": "chat", "runtime": limited})
        await workspace.until(lambda md: ready(md)["reason"] == "Idle", "chat")
        before = await revisions(workspace)
        (arguments,) = before.values()
        assert "--ctx-size" in arguments

        workspace.stack.kill("operator")
        try:
            # Not even the Model remembers what was read.
            forgotten = [{"op": "remove", "path": "/status/facts"}]
            workspace.stack.kubectl(
                *("patch", "model", "chat", "-n", workspace.name, "--subresource=status"),
                *("--type=json", "-p", json.dumps(forgotten)),
            )
            flaky.before_get = refuse
        finally:
            workspace.stack.start_operator()
        deadline = time.monotonic() + SETTLED
        while "incomplete" not in ((await told(workspace, "chat")).get("facts") or {}):
            assert time.monotonic() < deadline, workspace.stack.logs()
            await asyncio.sleep(0.1)
        # An edit that is no new revision has been reconciled by what is known now.
        await workspace.apply(
            "ModelDeployment",
            "chat",
            {"model": "chat", "runtime": limited, "serverlessConfig": {"maxNumReplicas": 3}},
        )
        await workspace.until(
            lambda md: md["status"]["observedGeneration"] == md["metadata"]["generation"], "chat"
        )
        assert await revisions(workspace) == before
        assert ready(await workspace.get("chat"))["reason"] == "Idle"
