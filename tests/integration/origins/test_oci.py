"""Models in a registry: looked at, read and fetched."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.registry import IMAGE_LAYER, Registry, digest, docker_config, packed
from tests.support.webstore import WebStore

from beamlit_operator.origins import OciRef, OriginError, parse_reference, resolve
from beamlit_operator.origins.__main__ import main
from beamlit_operator.origins.fetch import fetch
from beamlit_operator.origins.kinds import look, read

zstd: Any = importlib.import_module(
    "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
)

WEIGHTS = os.urandom(3 * 2**20)
CONFIG = b'{"architectures": ["LlamaForCausalLM"]}'


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


def named(registry: Registry, name: str = "acme/llama:v1") -> OciRef:
    return parse_reference(f"{registry.host}/{name}")


def brought(ref: OciRef, into: Path, *, config: str = "", revision: str | None = None) -> list[str]:
    """What was told while it was fetched."""
    lines: list[str] = []
    credentials = {".dockerconfigjson": config} if config else {}
    fetch(ref, into, revision=revision, credentials=credentials, report=lines.append)
    return lines


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".beamlit" not in path.parts
    }


async def test_an_artifact_is_its_files_at_the_manifests_digest(
    registry: Registry, tmp_path: Path
) -> None:
    made = registry.artifact(
        "acme/llama", "v1", {"config.json": CONFIG, "weights/model.safetensors": WEIGHTS}
    )
    found = await resolve(named(registry), {})
    assert found.revision == made
    assert [(each.path, each.size) for each in found.files] == [
        ("config.json", len(CONFIG)),
        ("weights/model.safetensors", len(WEIGHTS)),
    ]
    part = read(named(registry).at(found.revision), {}, found.files[1], 10, 20)
    assert part == WEIGHTS[10:30]
    brought(named(registry), tmp_path, revision=found.revision)
    assert files_in(tmp_path) == {"config.json": CONFIG, "weights/model.safetensors": WEIGHTS}


async def test_a_tag_that_moves_is_another_revision_and_the_old_one_is_still_there(
    registry: Registry, tmp_path: Path
) -> None:
    first = registry.artifact("acme/llama", "v1", {"config.json": b"{}"})
    second = registry.artifact("acme/llama", "v1", {"config.json": CONFIG})
    assert (await resolve(named(registry), {})).revision == second
    brought(named(registry), tmp_path, revision=first)
    assert files_in(tmp_path) == {"config.json": b"{}"}


async def test_of_an_index_the_digest_counts_and_one_manifest_is_taken(
    registry: Registry, tmp_path: Path
) -> None:
    manifest = registry.artifact("acme/llama", "amd", {"config.json": CONFIG})
    platform = {"os": "linux", "architecture": "amd64"}
    made = registry.push_index("acme/llama", "v1", [{"digest": manifest, "platform": platform}])
    assert (await resolve(named(registry), {})).revision == made
    brought(named(registry), tmp_path, revision=made)
    assert files_in(tmp_path) == {"config.json": CONFIG}


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
async def test_who_may_pull_is_asked_for_and_told_to_nobody_else(
    registry: Registry, tmp_path: Path, scheme: str
) -> None:
    registry.scheme, registry.accounts = scheme, {"anna": "open-sesame"}
    registry.artifact("acme/llama", "v1", {"config.json": CONFIG, "weights.gguf": WEIGHTS})
    brought(named(registry), tmp_path, config=docker_config(registry.host, "anna", "open-sesame"))
    assert files_in(tmp_path)["weights.gguf"] == WEIGHTS
    if scheme == "Bearer":
        # One for the look, one for the fetch: not one for each blob.
        assert registry.tokens_for == ["anna", "anna"]
    for config, reason in (
        (docker_config(registry.host, "anna", "guessed"), "CredentialsInvalid"),
        (docker_config("another.example.com", "anna", "open-sesame"), "AccessDenied"),
        ("", "AccessDenied"),
        ("{}", "CredentialsInvalid"),
    ):
        credentials = {".dockerconfigjson": config} if config else {}
        with pytest.raises(OriginError) as problem:
            await resolve(named(registry), credentials)
        assert problem.value.reason == reason
        assert "guessed" not in str(problem.value)
        assert "open-sesame" not in str(problem.value)


async def test_a_public_artifact_needs_a_token_but_no_account(registry: Registry) -> None:
    registry.scheme = "Bearer"
    registry.artifact("acme/llama", "v1", {"config.json": CONFIG})
    assert (await resolve(named(registry), {})).files
    assert registry.tokens_for == [None]


async def test_a_token_that_ends_in_the_middle_is_renewed(
    registry: Registry, tmp_path: Path
) -> None:
    registry.scheme = "Bearer"
    registry.artifact("acme/llama", "v1", {"weights.gguf": os.urandom(40 * 2**20)})
    registry.cut_at = [2**20]
    found = look(named(registry), {})
    registry.token = "another"
    brought(named(registry), tmp_path, revision=found.revision)
    assert digest((tmp_path / "weights.gguf").read_bytes()) == found.files[0].digest


async def test_a_blob_on_another_host_gets_no_credentials(
    registry: Registry, tmp_path: Path
) -> None:
    registry.scheme, registry.accounts = "Basic", {"anna": "open-sesame"}
    registry.artifact("acme/llama", "v1", {"weights.gguf": WEIGHTS})
    blob = next(path for path, content in registry.files.items() if content == WEIGHTS)
    with WebStore(address="127.0.0.2", files={"there": WEIGHTS}) as network:
        registry.redirects[blob] = network.url("there")
        config = docker_config(registry.host, "anna", "open-sesame")
        brought(named(registry), tmp_path, config=config)
        assert files_in(tmp_path) == {"weights.gguf": WEIGHTS}
        assert {each.authorization for each in network.asked} == {None}


async def test_content_that_is_exchanged_is_refused(registry: Registry, tmp_path: Path) -> None:
    made = registry.artifact("acme/llama", "v1", {"weights.gguf": WEIGHTS})
    blob = next(path for path, content in registry.files.items() if content == WEIGHTS)
    registry.files[blob] = WEIGHTS[:-1] + b"!"
    with pytest.raises(OriginError) as problem:
        brought(named(registry), tmp_path, revision=made)
    assert problem.value.reason == "Corrupt"
    assert files_in(tmp_path) == {}
    media, content = registry.manifests[f"acme/llama@{made}"]
    registry.manifests[f"acme/llama@{made}"] = (media, content + b" ")
    with pytest.raises(OriginError, match="the manifest that arrived is not"):
        await resolve(named(registry).at(made), {})


async def test_what_is_not_there_or_no_registry_is_told(registry: Registry) -> None:
    with pytest.raises(OriginError) as missing:
        await resolve(named(registry, "acme/llama:v2"), {})
    assert missing.value.reason == "NoObjects"
    assert "does not exist" in missing.value.message
    registry.keep("acme/llama", "v3", "text/html", "<html>")
    with pytest.raises(OriginError, match="sends no manifest"):
        await resolve(named(registry, "acme/llama:v3"), {})
    registry.scheme, registry.realm = "Bearer", "ftp://realm/"
    with pytest.raises(OriginError, match="names no usable realm"):
        await resolve(named(registry), {})


async def test_the_command_fetches_by_hand(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.scheme, registry.accounts = "Basic", {"anna": "open-sesame"}
    registry.artifact("acme/llama", "v1", {"config.json": CONFIG})
    config = docker_config(registry.host, "anna", "open-sesame")
    monkeypatch.setenv("BEAMLIT_DOCKER_CONFIG", config)
    assert main([named(registry).uri, str(tmp_path)]) == 0
    assert json.loads((tmp_path / "config.json").read_text())


async def test_an_image_is_its_models_folder_with_its_layers_over_each_other(
    registry: Registry, tmp_path: Path
) -> None:
    below = packed({"etc/passwd": b"root", "models/config.json": b"{}", "models/old/x": b"x"})
    above = packed({"models/config.json": CONFIG, "models/.wh.old": b"", "models/m.gguf": WEIGHTS})
    zstandard = IMAGE_LAYER.replace("gzip", "zstd")  # as BuildKit makes it when it is asked to
    layers = [
        registry.layer("acme/car", below, IMAGE_LAYER),
        registry.layer("acme/car", zstd.compress(gzip.decompress(above)), zstandard),
    ]
    registry.push("acme/car", "v1", layers)
    lines = brought(named(registry, "acme/car:v1"), tmp_path)
    assert files_in(tmp_path) == {"config.json": CONFIG, "m.gguf": WEIGHTS}
    assert any("unpacking" in line for line in lines)
    again = brought(named(registry, "acme/car:v1"), tmp_path)
    assert not any("unpacking" in line for line in again)
    with pytest.raises(OriginError, match="no file in folder 'weights'"):
        brought(
            parse_reference(f"{registry.host}/acme/car:v1", folder="weights"), tmp_path / "other"
        )


async def test_an_image_that_a_kubelet_mounts_is_only_looked_at(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = registry.layer("acme/car", packed({"models/config.json": CONFIG}), IMAGE_LAYER)
    made = registry.push("acme/car", "v1", [layer])
    text = f"{registry.host}/acme/car:v1"
    found = await resolve(parse_reference(text, mounted=True), {})
    assert (found.revision, found.files, found.bytes) == (made, (), layer["size"])
    registry.artifact("acme/llama", "v1", {"config.json": CONFIG})
    with pytest.raises(OriginError, match="set mode to Fetch"):
        await resolve(parse_reference(f"{registry.host}/acme/llama:v1", mounted=True), {})
    command = [f"oci://{text}", str(tmp_path / "models"), "--mounted"]
    assert main(command) == 1
    assert "cannot mount images" in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.json").write_bytes(CONFIG)
    assert main(command) == 0
    (tmp_path / "models" / "model.pkl").write_bytes(pickle.dumps({}))
    assert main(command) == 1
    assert "model.pkl" in capsys.readouterr().err


async def test_a_folder_that_was_packed_into_an_artifact_is_unpacked(
    registry: Registry, tmp_path: Path
) -> None:
    weights = registry.layer(
        "acme/kit",
        packed({"weights/m.gguf": WEIGHTS}),
        "application/vnd.cncf.model.weight.v1.tar+gzip",
    )
    config = registry.layer(
        "acme/kit",
        CONFIG,
        "application/vnd.cncf.model.weight.config.v1.raw",
        {"org.cncf.model.filepath": "config.json"},
    )
    registry.push("acme/kit", "v1", [weights, config])
    brought(named(registry, "acme/kit:v1"), tmp_path)
    assert files_in(tmp_path) == {"config.json": CONFIG, "weights/m.gguf": WEIGHTS}


@pytest.mark.parametrize("inside", ["models/model.pkl", "models/harmless.bin"])
async def test_a_pickle_in_a_layer_is_found(
    registry: Registry, tmp_path: Path, inside: str
) -> None:
    content = packed({inside: pickle.dumps({"weights": [1.0]})})
    registry.push("acme/car", "v1", [registry.layer("acme/car", content, IMAGE_LAYER)])
    with pytest.raises(OriginError) as problem:
        brought(named(registry, "acme/car:v1"), tmp_path)
    assert problem.value.reason == "PickleNotAllowed"
    assert files_in(tmp_path) == {}


async def test_a_layer_that_leads_out_of_its_folder_writes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    content = packed({"models/../../outside": b"!"})
    registry.push("acme/car", "v1", [registry.layer("acme/car", content, IMAGE_LAYER)])
    with pytest.raises(OriginError) as problem:
        brought(named(registry, "acme/car:v1"), tmp_path / "models")
    assert problem.value.reason == "UnsafePath"
    assert {path.name for path in tmp_path.iterdir()} == {"models"}
    assert files_in(tmp_path) == {}
