"""Which runtime suits the files of a model, and why. By their names alone.

Rules in order; the first that matches decides:

| files                                                   | runtime  |
|---------------------------------------------------------|----------|
| model-settings.json                                     | mlserver |
| MLmodel                                                 | mlserver |
| *.gguf                                                  | llamacpp |
| modules.json or 1_Pooling/, with config.json            | tei      |
| config.json with *.safetensors or pytorch_model*.bin    | vllm     |
| config.pbtxt, *.onnx, *.plan, or TorchScript model.pt   | triton   |
| *.joblib, *.pkl, *.pickle                               | mlserver |
| *.bst, *.ubj, model.json                                | mlserver |
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from posixpath import basename

from beamlit_operator.workloads.files import MODELS


@dataclass(frozen=True)
class Suggestion:
    """A runtime preset and what in the files suggests it."""

    type: str
    because: str


def suggest_runtime(paths: Sequence[str]) -> Suggestion | None:
    """The preset that suits the files; None if nothing is recognised."""
    for runtime, rule in _RULES:
        found = rule(paths)
        if found:
            return Suggestion(runtime, f"the origin holds {found}")
    return None


def mlserver_variables(model: str, paths: Sequence[str]) -> dict[str, str]:
    """What tells MLServer to load files that come without a model-settings.json.

    As KServe does for its MLServer runtime: name, place and implementation of the model. Empty when
    the files bring their own settings, or when it is not known what they are.
    """
    if _named(paths, "model-settings.json"):
        return {}
    for implementation, patterns in _MLSERVER:
        for pattern in patterns:
            # The shallowest and first of several, so that the choice never depends on their order.
            found = _matching(paths, pattern)
            if found:
                place = f"{MODELS}/{found[0]}"
                if basename(found[0]) == "MLmodel":
                    place = place.removesuffix("/MLmodel")
                return {
                    "MLSERVER_MODEL_NAME": model,
                    "MLSERVER_MODEL_URI": place,
                    "MLSERVER_MODEL_IMPLEMENTATION": implementation,
                }
    return {}


def first_gguf(paths: Sequence[str]) -> str | None:
    """The GGUF file to load: the first part of a split one, never a projector."""
    found = [path for path in _matching(paths, "*.gguf") if "mmproj" not in basename(path)]
    return f"{MODELS}/{found[0]}" if found else None


_MLSERVER = (
    ("mlserver_mlflow.MLflowRuntime", ("MLmodel",)),
    ("mlserver_sklearn.SKLearnModel", ("*.joblib", "*.pkl", "*.pickle")),
    ("mlserver_xgboost.XGBoostModel", ("*.ubj", "model.json", "*.bst")),
)
"""MLServer's implementations. `.bst` may be XGBoost's or LightGBM's: XGBoost, as in MLServer's own
documentation; a LightGBM model needs a model-settings.json."""


def _matching(paths: Iterable[str], pattern: str) -> list[str]:
    found = [path for path in paths if fnmatchcase(basename(path), pattern)]
    return sorted(found, key=lambda path: (path.count("/"), path))


def _named(paths: Iterable[str], *patterns: str) -> str | None:
    for pattern in patterns:
        found = _matching(paths, pattern)
        if found:
            return found[0]
    return None


def _embedding(paths: Sequence[str]) -> str | None:
    pooling = "modules.json" if "modules.json" in paths else _named(paths, "sentence_bert_config.*")
    pooling = pooling or next((p for p in sorted(paths) if p.startswith("1_Pooling/")), None)
    return f"config.json and {pooling}" if pooling and "config.json" in paths else None


def _transformer(paths: Sequence[str]) -> str | None:
    weights = _named(paths, "*.safetensors", "pytorch_model*.bin")
    return f"config.json and {weights}" if weights and "config.json" in paths else None


def _of(*patterns: str) -> Callable[[Sequence[str]], str | None]:
    return lambda paths: _named(paths, *patterns)


_RULES: tuple[tuple[str, Callable[[Sequence[str]], str | None]], ...] = (
    ("mlserver", _of("model-settings.json", "MLmodel")),
    ("llamacpp", _of("*.gguf")),
    ("tei", _embedding),
    ("vllm", _transformer),
    ("triton", _of("config.pbtxt", "*.onnx", "*.plan", "model.pt")),
    ("mlserver", _of("*.joblib", "*.pkl", "*.pickle", "*.ubj", "*.bst", "model.json")),
)
