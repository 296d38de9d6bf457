"""Which runtime suits the files of a model when it is known what they say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.runtime import Runtime
from beamlit_operator.workloads.detection import (
    detect,
    mlserver_variables,
    suggest_runtime,
    why_unserved,
)
from beamlit_operator.workloads.runtimes import RuntimeProblem, presets, server

TRANSFORMER = ["config.json", "model.safetensors"]
SENTENCES = [*TRANSFORMER, "modules.json", "1_Pooling/config.json"]


def bert(architecture: str, task: str | None) -> dict[str, Any]:
    return {"architecture": architecture, "model_type": "bert", "task": task}


@pytest.mark.parametrize(
    ("paths", "facts", "runtime", "because"),
    [
        (
            TRANSFORMER,
            {"architecture": "LlamaForCausalLM", "task": "generate"},
            "vllm",
            "config.json names LlamaForCausalLM",
        ),
        (TRANSFORMER, bert("BertModel", "embed"), "tei", "config.json names BertModel, an encoder"),
        (
            TRANSFORMER,
            bert("BertForSequenceClassification", "rerank"),
            "tei",
            "config.json names BertForSequenceClassification, one label, as of a reranker",
        ),
        (
            TRANSFORMER,
            bert("BertForSequenceClassification", "classify"),
            "tei",
            "config.json names BertForSequenceClassification, a classifier",
        ),
        (
            TRANSFORMER,
            {
                "architecture": "Qwen3ForSequenceClassification",
                "model_type": "qwen3",
                "task": "rerank",
            },
            "vllm",
            "config.json names Qwen3ForSequenceClassification",
        ),
        (
            TRANSFORMER,
            {"architecture": "ElectraModel", "model_type": "electra", "task": "embed"},
            "vllm",
            "config.json names ElectraModel",
        ),
        (TRANSFORMER, {"architecture": "New"}, "vllm", "config.json names New"),
        (TRANSFORMER, {}, "vllm", "the origin holds config.json and model.safetensors"),
        (
            SENTENCES,
            {"architecture": "BertModel", "model_type": "bert"},
            "tei",
            "the origin holds config.json and modules.json",
        ),
        (
            SENTENCES,
            {"architecture": "LlamaModel", "model_type": "llama"},
            "vllm",
            "the origin holds config.json and modules.json, and TEI serves no llama",
        ),
        (
            ["m-Q4_K_M.gguf", *TRANSFORMER],
            {"format": "gguf", "architecture": "llama"},
            "llamacpp",
            "the origin holds m-Q4_K_M.gguf, whose header names llama",
        ),
        (
            ["MLmodel"],
            {"format": "mlflow", "library": "sklearn", "implementation": "python_function"},
            "mlserver",
            "the origin holds MLmodel with flavor sklearn",
        ),
        (
            ["model-settings.json"],
            {"implementation": "models.Mine"},
            "mlserver",
            "the origin holds model-settings.json, which names models.Mine",
        ),
        (
            ["r/config.pbtxt"],
            {"library": "onnxruntime"},
            "triton",
            "the origin holds r/config.pbtxt, which names onnxruntime",
        ),
        (
            ["model.bst"],
            {"format": "lightgbm"},
            "mlserver",
            "the origin holds model.bst, written by LightGBM",
        ),
        (
            ["model.txt"],
            {"format": "lightgbm"},
            "mlserver",
            "the origin holds model.txt, written by LightGBM",
        ),
    ],
)
def test_what_the_files_say_decides_and_is_the_reason(
    paths: list[str], facts: dict[str, Any], runtime: str, because: str
) -> None:
    found = suggest_runtime(paths, ModelFacts(**facts))
    assert found is not None
    assert (found.type, found.because) == (runtime, because)
    assert runtime in presets()


@pytest.mark.parametrize(
    ("paths", "facts", "because"),
    [
        (
            ["model_index.json", "unet/diffusion.safetensors", "unet/model.onnx"],
            {"library": "diffusers", "architecture": "FluxPipeline"},
            "a pipeline of diffusers, FluxPipeline, which no preset serves",
        ),
        (["model_index.json"], {}, "a pipeline of diffusers, which no preset serves"),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            {"task": "adapt", "base_model": "meta/llama"},
            "an adapter of meta/llama: merge the two",
        ),
        (
            TRANSFORMER,
            {"architecture": "ViTForImageClassification", "task": "see"},
            "config.json names ViTForImageClassification, which no preset serves",
        ),
        (TRANSFORMER, bert("BertForTokenClassification", "label"), "no preset serves"),
        (
            TRANSFORMER,
            {"architecture": "T5ForConditionalGeneration", "task": "translate"},
            "no preset serves",
        ),
        (SENTENCES, {"architecture": "CLIPModel", "model_type": "clip"}, "no preset embeds"),
        (["MLmodel"], {"format": "mlflow", "library": "spark"}, "no flavor python_function"),
    ],
)
def test_what_no_preset_serves_is_said_and_not_guessed(
    paths: list[str], facts: dict[str, Any], because: str
) -> None:
    known = ModelFacts(**facts)
    assert suggest_runtime(paths, known) is None
    assert because in (why_unserved(paths, known) or "")
    with pytest.raises(RuntimeProblem, match=r"set spec\.runtime\.type"):
        server(Runtime(), model="m", environment="e", paths=paths, gpus=0, facts=known)
    chosen = server(
        Runtime(type="vllm"), model="m", environment="e", paths=paths, gpus=0, facts=known
    )
    assert chosen.type == "vllm"


@pytest.mark.parametrize(
    ("paths", "format_", "implementation"),
    [
        (["model.bst"], "lightgbm", "mlserver_lightgbm.LightGBMModel"),
        (["model.bst"], "xgboost", "mlserver_xgboost.XGBoostModel"),
        (["model.bst"], None, "mlserver_xgboost.XGBoostModel"),
        (["model.txt"], "lightgbm", "mlserver_lightgbm.LightGBMModel"),
        (["model.txt"], None, None),
        (["a/model.joblib"], "lightgbm", "mlserver_sklearn.SKLearnModel"),
    ],
)
def test_mlserver_is_told_who_wrote_the_trees(
    paths: list[str], format_: str | None, implementation: str | None
) -> None:
    found = mlserver_variables("m", paths, ModelFacts(format=format_))
    assert found.get("MLSERVER_MODEL_IMPLEMENTATION") == implementation


_WORDS = st.none() | st.sampled_from(
    ["generate", "embed", "see", "bert", "t5", "lightgbm", "mlflow", "BertModel", "diffusers"]
)


@given(
    st.lists(
        st.sampled_from([*SENTENCES, "MLmodel", "m.gguf", "model.onnx", "model.txt", "README.md"])
    ),
    st.builds(
        ModelFacts,
        task=_WORDS,
        model_type=_WORDS,
        architecture=_WORDS,
        format=_WORDS,
        library=_WORDS,
    ),
)
def test_an_answer_never_depends_on_the_order_of_the_files(
    paths: list[str], facts: ModelFacts
) -> None:
    assert detect(paths, facts) == detect(sorted(paths, reverse=True), facts)
