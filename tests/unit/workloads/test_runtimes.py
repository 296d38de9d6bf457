"""Presets, detection and merging."""

from typing import Any

import pytest

from beamlit_operator.api.runtime import Runtime
from beamlit_operator.workloads.detection import (
    first_gguf,
    mlserver_variables,
    suggest_runtime,
)
from beamlit_operator.workloads.merge import merged
from beamlit_operator.workloads.presets import presets
from beamlit_operator.workloads.runtimes import (
    RuntimeProblem,
    Server,
    merged_runtime,
    server,
)


@pytest.mark.parametrize(
    ("paths", "runtime"),
    [
        (["model.joblib", "model-settings.json"], "mlserver"),
        (["MLmodel", "model.pkl", "conda.yaml"], "mlserver"),
        (["model.xgb.ubj"], "mlserver"),
        (["llama-q4.gguf", "README.md"], "llamacpp"),
        (["config.json", "model.safetensors", "tokenizer.json"], "vllm"),
        (["config.json", "pytorch_model-00001-of-00002.bin"], "vllm"),
        (["config.json", "modules.json", "model.safetensors", "1_Pooling/config.json"], "tei"),
        (["resnet/config.pbtxt", "resnet/1/model.onnx"], "triton"),
        (["mnist.mar", "README.md"], "torchserve"),
        (["archives/mnist.mar"], None),
        (["README.md"], None),
        ([], None),
    ],
)
def test_files_suggest_a_runtime_that_is_a_preset(paths: list[str], runtime: str | None) -> None:
    found = suggest_runtime(paths)
    assert (found.type if found else None) == runtime
    assert found is None or (found.type in presets() and "the origin holds" in found.because)


def test_files_with_their_own_settings_are_left_to_mlserver() -> None:
    assert mlserver_variables("m", ["model.joblib", "model-settings.json"]) == {}
    assert mlserver_variables("m", ["notes.txt"]) == {}


def test_an_mlflow_model_is_loaded_from_its_folder() -> None:
    variables = mlserver_variables("m", ["run/MLmodel", "run/model.pkl"])
    assert variables["MLSERVER_MODEL_URI"] == "/mnt/models/run"
    assert mlserver_variables("m", ["MLmodel"])["MLSERVER_MODEL_URI"] == "/mnt/models"


def test_the_first_part_of_a_split_gguf_is_loaded_and_never_a_projector() -> None:
    paths = ["mmproj.gguf", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf"]
    assert first_gguf(paths) == "/mnt/models/m-00001-of-00002.gguf"


def made(runtime: Runtime, *paths: str, gpus: int = 0) -> Server:
    return server(runtime, model="m", environment="production", paths=paths, gpus=gpus)


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_leaves_nothing_unfilled(name: str) -> None:
    found = made(Runtime(type=name), "m.gguf", gpus=2)
    texts = [*found.command, *found.args, *(each["value"] for each in found.env)]
    assert not any("{" in text or "}" in text for text in texts)
    assert str(found.port) in " ".join(texts)


def test_every_field_of_the_user_overrides_the_presets() -> None:
    runtime = Runtime.model_validate(
        {
            "type": "mlserver",
            "image": "example.com/mlserver:2",
            "servingPort": 9000,
            "metricPort": 9001,
            "envs": [{"name": "MLSERVER_PARALLEL_WORKERS", "value": "2"}],
            "readinessProbe": {"httpGet": {"path": "/ok", "port": 9000}, "periodSeconds": 5},
            "resources": {"limits": {"cpu": "4"}},
        }
    )
    found = made(runtime, "model.joblib")
    environment = {each["name"]: each["value"] for each in found.env}
    assert found.image == "example.com/mlserver:2"
    assert environment["MLSERVER_HTTP_PORT"] == "9000"
    assert environment["MLSERVER_METRICS_PORT"] == "9001"
    assert environment["MLSERVER_PARALLEL_WORKERS"] == "2"
    assert found.readiness["periodSeconds"] == 5
    assert found.resources == {"limits": {"cpu": "4"}}


def test_a_command_of_the_users_own_comes_without_the_presets_arguments() -> None:
    found = made(Runtime(type="vllm", command=("serve",)))
    assert (found.command, found.args) == (("serve",), ())


def test_the_deployments_runtime_is_laid_over_the_models() -> None:
    of_model = Runtime(type="vllm", image="a", envs=({"name": "X", "value": "1"},))
    of_deployment = Runtime(serving_port=9, envs=({"name": "Y", "value": "2"},))
    both = merged_runtime(of_model, of_deployment)
    assert (both.type, both.image, both.serving_port) == ("vllm", "a", 9)
    assert [each["name"] for each in both.envs or ()] == ["X", "Y"]


def test_another_type_leaves_nothing_of_the_models_runtime() -> None:
    both = merged_runtime(Runtime(type="vllm", image="a"), Runtime(type="tei"))
    assert (both.type, both.image) == ("tei", None)


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(RuntimeProblem, match="use one of llamacpp, mlserver, sglang, tei, "):
        made(Runtime(type="vlm"))


def test_gpus_choose_the_image_and_the_arguments() -> None:
    assert "cuda" in made(Runtime(type="tei"), gpus=1).image
    assert "cuda" not in made(Runtime(type="tei")).image
    assert "--tensor-parallel-size" not in made(Runtime(type="vllm"), gpus=1).args
    assert made(Runtime(type="vllm"), gpus=2).args[-2:] == ("--tensor-parallel-size", "2")


def test_an_image_alone_is_a_server_of_the_users_own() -> None:
    found = made(Runtime(image="example.com/mine:1"), "model.joblib")
    assert (found.type, found.command, found.args) == (None, (), ())
    assert found.readiness == {"tcpSocket": {"port": 8080}}


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": 1}, {"a": None}, {}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        (
            {"containers": [{"name": "m", "image": "a"}]},
            {"containers": [{"name": "m", "args": ["x"]}, {"name": "s"}]},
            {"containers": [{"name": "m", "image": "a", "args": ["x"]}, {"name": "s"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "A", "$patch": "delete"}]},
            {"env": [{"name": "B", "value": "2"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/a", "name": "x"}]},
            {"volumeMounts": [{"mountPath": "/a", "readOnly": True}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "x", "readOnly": True}]},
        ),
        (
            {"tolerations": [{"key": "gpu"}]},
            {"tolerations": [{"key": "spot"}, {"key": "gpu"}]},
            {"tolerations": [{"key": "gpu"}, {"key": "spot"}]},
        ),
    ],
)
def test_templates_merge_by_kubernetes_rules(
    below: dict[str, Any], above: dict[str, Any], result: dict[str, Any]
) -> None:
    assert merged(below, above) == result


def test_vllm_answers_to_the_name_with_and_without_the_environment() -> None:
    args = made(Runtime(type="vllm")).args
    names = args[args.index("--served-model-name") + 1 :]
    assert names == ("m", "m@production")
