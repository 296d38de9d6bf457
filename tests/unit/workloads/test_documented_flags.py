"""What presets render is what the servers document: every argument, every variable.

The facts are data in `tests/fixtures/runtimes`, a file for each server, with version and source.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.policy import Aspect, EffectivePolicy
from beamlit_operator.workloads import ModelFiles, Settings, Workload, workload
from beamlit_operator.workloads.presets import presets

FACTS = Path(__file__).parents[2] / "fixtures" / "runtimes"
DOCUMENTED = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in FACTS.glob("*.yaml")}
HELD = EffectivePolicy(location=Aspect(None, ()), flavor=Aspect(None, ()))
SETTINGS = Settings(image="registry.example/beamlit:1", gateway_service="gateway")
GIB = 2**30

LLAMA = ModelFacts(
    task="generate",
    context_length=131072,
    weight_bytes=16 * GIB,
    kv_values_per_token=65536,
    attention_heads=32,
    kv_heads=8,
    hidden_size=4096,
    dtype="bfloat16",
)
EMBED = ModelFacts(
    task="embed",
    context_length=32768,
    weight_bytes=GIB,
    hidden_size=1024,
    kv_values_per_token=57344,
)
RERANK = EMBED.model_copy(update={"task": "rerank"})
LIMITED = {"limits": {"memory": "8Gi"}}

SMALL = LLAMA.model_copy(update={"weight_bytes": 2 * GIB})
MODELS: dict[str, ModelFacts | None] = {
    "unread": None, "llama": LLAMA, "small": SMALL, "embed": EMBED, "rerank": RERANK,
}  # fmt: skip
PLACES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "limited": {"runtime": {"resources": LIMITED}},
    "t4": {"flavors": [{"type": "gpu", "name": "t4"}]},
    "h100": {"flavors": [{"type": "gpu", "name": "h100"}]},
    "two": {"runtime": {"resources": {"limits": {"nvidia.com/gpu": "2"}}}},
}
PATHS = {"llamacpp": ("model.gguf",), "mlserver": ("model.joblib",), "torchserve": ("m.mar",)}


def container(type_: str, place: str, facts: ModelFacts | None) -> dict[str, Any]:
    """The model server's container."""
    spec = dict(PLACES[place])
    spec["runtime"] = {**spec.get("runtime", {}), "type": type_}
    deployment = ModelDeployment.model_validate(
        {"metadata": {"name": "m", "namespace": "team", "uid": "u"}, "spec": {"model": "m", **spec}}
    )
    files = ModelFiles(
        uri="s3://models/m",
        revision="sha256:0",
        paths=PATHS.get(type_, ("config.json", "model.safetensors")),
        facts=facts,
    )
    model = Model.model_validate({"metadata": {"name": "m"}})
    made = workload(deployment, model, policy=HELD, files=files, settings=SETTINGS)
    assert isinstance(made, Workload), made
    (found,) = made.deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_every_preset_has_its_facts_and_the_other_way_round() -> None:
    assert set(DOCUMENTED) == set(presets())
    for name, facts in DOCUMENTED.items():
        images = {presets()[name].image, presets()[name].image_gpu} - {None}
        assert {str(image).rpartition(":")[0] for image in images} == {facts["image"]}
        assert presets()[name].ready == facts["probe"]
        assert all(facts[key] for key in ("version", "source", "metrics"))


@pytest.mark.parametrize(
    "image", sorted({i for p in presets().values() for i in (p.image, p.image_gpu) if i})
)
def test_images_are_of_one_version(image: str) -> None:
    assert re.search(r":.*\d", image), "a tag that moves makes a revision something else later"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("type_", sorted(presets()))
def test_every_argument_and_variable_is_documented(type_: str, place: str, model: str) -> None:
    documented = DOCUMENTED[type_]
    rendered = container(type_, place, MODELS[model])
    variables = {each["name"] for each in rendered["env"]}
    assert variables <= {*documented["env"].split(), "HOME"}
    command, args = rendered.get("command", []), rendered.get("args", [])
    if type_ == "torchserve":
        _check_script(args, documented)
        return
    if command[:2] == ["sh", "-c"]:  # what the shell ends as, with the arguments
        assert command[2].endswith('exec "$0" "$@"')
        command = command[3:]
    program = " ".join(command[:2] if command[:1] in (["vllm"], ["mlserver"]) else command)
    assert program in documented["programs"]
    words = [*command[2:], *args] if program in ("vllm serve", "mlserver start") else args
    _check_words(words, documented)


def _check_words(words: list[str], documented: dict[str, Any]) -> None:
    """Flags are known, in `--name value` or `--name=value`, and nothing stands without one."""
    flags, several = documented["flags"].split(), documented.get("several", [])
    positional, flag = documented.get("positional", 0), ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            assert flag in flags, f"{flag} is not documented"
            if equals:
                _check_choice(flag, value, documented)
                flag = ""
        elif flag:
            _check_choice(flag, word, documented)
            flag = flag if flag in several else ""
        else:
            positional -= 1
            assert positional >= 0, f"{word} belongs to no flag"


def _check_choice(flag: str, value: str, documented: dict[str, Any]) -> None:
    choices = documented.get("choices", {}).get(flag)
    assert choices is None or value in choices


def _check_script(args: list[str], documented: dict[str, Any]) -> None:
    (script,) = args
    lines = script.splitlines()
    begin, end = lines.index("cat > /tmp/config.properties <<EOF"), lines.index("EOF")
    properties = {line.partition("=")[0] for line in lines[begin + 1 : end]}
    assert properties <= set(documented["properties"].split())
    flags = re.findall(r"--[a-z-]+", "\n".join(lines[end:]))
    assert flags
    assert set(flags) <= set(documented["flags"].split())


def test_the_check_finds_what_is_not_documented() -> None:
    documented = {"flags": "--port", "positional": 0}
    _check_words(["--port", "8080"], documented)
    with pytest.raises(AssertionError, match="--prot is not documented"):
        _check_words(["--prot", "8080"], documented)
    with pytest.raises(AssertionError, match="belongs to no flag"):
        _check_words(["--port", "8080", "8081"], documented)


@pytest.mark.parametrize("type_", sorted(presets()))
def test_a_server_writes_nowhere_but_into_its_volumes(type_: str) -> None:
    rendered = container(type_, "h100", LLAMA)
    assert rendered["securityContext"]["readOnlyRootFilesystem"] is True
    variables = {each["name"]: each["value"] for each in rendered["env"]}
    assert variables["HOME"] == "/tmp"
    for name, value in variables.items():
        if value.startswith("/"):
            assert value.startswith(("/tmp", "/mnt/models")), name


def test_the_image_for_gpus_is_started_by_its_own_entry_point() -> None:
    assert "command" not in container("tei", "t4", None)
    assert container("tei", "cpu", None)["command"] == ["text-embeddings-router"]
