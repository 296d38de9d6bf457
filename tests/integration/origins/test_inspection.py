"""What the files of a revision say, read from real stores."""

from __future__ import annotations

from typing import Any

from tests.support.hub import HubServer
from tests.support.modelfiles import LLAMA, config, safetensors

from beamlit_operator.origins import HubRef, S3Ref, resolve
from beamlit_operator.origins.inspection import inspect

from .conftest import KEYS

WEIGHTS = safetensors({"w": ("BF16", [100_000])})


async def test_a_bucket_s_files_are_read(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="m/model.safetensors", Body=WEIGHTS)
    s3.put_object(Bucket="models", Key="m/config.json", Body=config(LLAMA))
    ref = S3Ref("models", "m", endpoint=s3_endpoint)
    found = await inspect(ref, KEYS, await resolve(ref, KEYS))
    assert not found.again
    assert (found.facts.architecture, found.facts.parameters) == ("LlamaForCausalLM", 100_000)


async def test_a_private_repository_s_files_are_read_and_its_weights_are_not(
    hub: HubServer,
) -> None:
    hub.add("org/m", {"model.safetensors": WEIGHTS, "config.json": config(LLAMA)})
    hub.repos["org/m"].private = True
    hub.tokens.add("good")
    hub.repos["org/m"].granted.add("good")
    ref = HubRef("org/m", endpoint=hub.endpoint)
    listing = await resolve(ref, {"token": "good"})
    hub.requests.clear()
    found = await inspect(ref, {"token": "good"}, listing)
    assert not found.again
    assert (found.facts.dtype, found.facts.weight_bytes) == ("bfloat16", 200_000)
    resolved = [line for line in hub.requests if "/resolve/" in line]
    assert sorted(line.rpartition("/")[2] for line in resolved) == [
        "config.json",
        "model.safetensors",
    ]
    assert all(f"/resolve/{listing.revision}/" in line for line in resolved)


async def test_an_object_that_changed_since_it_was_listed_says_nothing(
    s3: Any, s3_endpoint: str
) -> None:
    s3.put_object(Bucket="models", Key="m/config.json", Body=config(LLAMA))
    ref = S3Ref("models", "m", endpoint=s3_endpoint)
    listing = await resolve(ref, KEYS)
    s3.put_object(Bucket="models", Key="m/config.json", Body=config(LLAMA, model_type="other"))
    found = await inspect(ref, KEYS, listing)
    assert found.again
    assert found.facts.model_type is None
    assert "was changed or removed meanwhile" in (found.facts.incomplete or "")
    assert "secret-example" not in (found.facts.incomplete or "")


async def test_a_store_that_lists_and_lets_nothing_be_read_leaves_the_facts_unknown(
    hub: HubServer,
) -> None:
    hub.add("org/m", {"model.safetensors": WEIGHTS, "config.json": config(LLAMA)})
    ref = HubRef("org/m", endpoint=hub.endpoint)
    listing = await resolve(ref, {})
    hub.storm, hub.storm_status = 1000, 503
    found = await inspect(ref, {}, listing)
    assert found.again
    assert found.facts.architecture is None
    assert "could not be read" in (found.facts.incomplete or "")
