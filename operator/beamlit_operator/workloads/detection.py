"""Which runtime suits the files of a model, and why: by their names, and by what they say.

Rules in order; the first that matches decides. What the files say (``facts``) may be unknown, all
or a part: then the names alone count, as if the second column were empty.

| files                                        | they say                     | runtime           |
|----------------------------------------------|------------------------------|-------------------|
| model-settings.json                          |                              | mlserver          |
| MLmodel                                      | no flavor python_function    | none              |
| MLmodel                                      |                              | mlserver          |
| *.gguf                                       |                              | llamacpp          |
| model_index.json: a pipeline of diffusers    |                              | none              |
| adapter_config.json without config.json      |                              | none              |
| modules.json or 1_Pooling/, with config.json | a model type TEI knows, none | tei               |
|                                              | another one                  | vllm              |
| config.json with *.safetensors or            | embed, rerank, classify, of  | tei               |
| pytorch_model*.bin                           | a model type TEI knows       |                   |
|                                              | label, see, translate        | none              |
|                                              | another task, none           | vllm              |
| config.pbtxt, *.onnx, *.plan, or TorchScript |                              | triton            |
| model.pt                                     |                              |                   |
| *.mar, at the top                            |                              | torchserve        |
| *.joblib, *.pkl, *.pickle                    |                              | mlserver          |
| *.bst, *.ubj, model.json                     | xgboost, lightgbm, nothing   | mlserver          |
| model.txt                                    | lightgbm                     | mlserver          |

None means that no preset serves it: better said than started. `spec.runtime` overrides all of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from posixpath import basename

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.workloads.files import MODELS


@dataclass(frozen=True)
class Suggestion:
    """A runtime preset and what in the files suggests it."""

    type: str
    because: str


@dataclass(frozen=True)
class Unserved:
    """What is known of files that no preset serves; a sentence."""

    because: str


_NOTHING = ModelFacts()


def suggest_runtime(paths: Sequence[str], facts: ModelFacts | None = None) -> Suggestion | None:
    """The preset that suits the files; None if nothing is recognised, or no preset serves it."""
    found = detect(paths, facts)
    return found if isinstance(found, Suggestion) else None


def why_unserved(paths: Sequence[str], facts: ModelFacts | None = None) -> str | None:
    """Why no preset serves what the files are, as far as that is known; a sentence."""
    found = detect(paths, facts)
    return found.because if isinstance(found, Unserved) else None


def detect(paths: Sequence[str], facts: ModelFacts | None = None) -> Suggestion | Unserved | None:
    """What serves the files, or why nothing does; None if they are not recognised."""
    return _detected(tuple(paths), facts or _NOTHING)


@lru_cache(maxsize=1024)
def _detected(paths: tuple[str, ...], facts: ModelFacts) -> "_Answer":
    """Remembered: each reconcile of a deployment asks it of the same files."""
    return next((found for rule in _RULES if (found := rule(paths, facts)) is not None), None)


_Answer = Suggestion | Unserved | None


def _own_settings(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    if (found := _named(paths, "model-settings.json")) is not None:
        named = f", which names {facts.implementation}" if facts.implementation else ""
        return Suggestion("mlserver", f"the origin holds {found}{named}")
    return None


def _mlflow(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    found = _named(paths, "MLmodel")
    if found is None:
        return None
    if facts.format == "mlflow" and facts.library and facts.implementation is None:
        return Unserved(
            f"{found} has no flavor python_function, which MLServer needs: save the model with it"
        )
    flavor = f" with flavor {facts.library}" if facts.format == "mlflow" and facts.library else ""
    return Suggestion("mlserver", f"the origin holds {found}{flavor}")


def _gguf(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    found = first_gguf(paths)
    if found is None:
        return None
    named = f", whose header names {facts.architecture}" if facts.architecture else ""
    return Suggestion("llamacpp", f"the origin holds {found.removeprefix(MODELS + '/')}{named}")


def _pipeline(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    if "model_index.json" not in paths:
        return None
    named = f", {facts.architecture}" if facts.library == "diffusers" and facts.architecture else ""
    return Unserved(
        f"model_index.json says that this is a pipeline of diffusers{named}, which no preset serves"
    )


def _adapter(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    if "adapter_config.json" not in paths or "config.json" in paths:
        return None
    base = facts.base_model or "a model that is not here"
    return Unserved(
        f"adapter_config.json says that this is an adapter of {base}: merge the two and put the "
        f"result at the origin"
    )


def _sentences(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    found = _embedding(paths)
    if found is None:
        return None
    if facts.model_type in _SEEN_BY_NEITHER:
        return Unserved(f"config.json names model type {facts.model_type}, which no preset embeds")
    if facts.model_type is not None and facts.model_type not in TEI_EMBEDS:
        return Suggestion("vllm", f"the origin holds {found}, and TEI serves no {facts.model_type}")
    return Suggestion("tei", f"the origin holds {found}")


def _transformer(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    weights = _named(paths, "*.safetensors", "pytorch_model*.bin")
    if weights is None or "config.json" not in paths:
        return None
    if facts.architecture is None:
        return Suggestion("vllm", f"the origin holds config.json and {weights}")
    named = f"config.json names {facts.architecture}"
    match facts.task:
        case "label" | "see" | "translate":
            return Unserved(f"{named}, which no preset serves")
        case "embed" if facts.model_type in TEI_EMBEDS:
            return Suggestion("tei", f"{named}, an encoder")
        case "rerank" | "classify" if facts.model_type in TEI_CLASSIFIES:
            what = "one label, as of a reranker" if facts.task == "rerank" else "a classifier"
            return Suggestion("tei", f"{named}, {what}")
        case _:
            return Suggestion("vllm", named)


def _repository(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    found = _named(paths, "config.pbtxt", "*.onnx", "*.plan", "model.pt")
    if found is None:
        return None
    of = basename(found) == "config.pbtxt" and facts.library
    named = f", which names {facts.library}" if of else ""
    return Suggestion("triton", f"the origin holds {found}{named}")


def _archive(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    # TorchServe looks for archives at the top of its store only.
    found = _named([path for path in paths if "/" not in path], "*.mar")
    return Suggestion("torchserve", f"the origin holds {found}") if found is not None else None


def _tabular(paths: Sequence[str], facts: ModelFacts) -> _Answer:
    found = _named(paths, "*.joblib", "*.pkl", "*.pickle", "*.ubj", "*.bst", "model.json")
    if found is None and facts.format == "lightgbm":
        found = _named(paths, "model.txt")
    if found is None:
        return None
    by = {"xgboost": ", written by XGBoost", "lightgbm": ", written by LightGBM"}
    return Suggestion("mlserver", f"the origin holds {found}{by.get(facts.format or '', '')}")


_RULES = (
    _own_settings,
    _mlflow,
    _gguf,
    _pipeline,
    _adapter,
    _sentences,
    _transformer,
    _repository,
    _archive,
    _tabular,
)

TEI_EMBEDS = frozenset(
    {
        *("bert", "camembert", "roberta", "xlm-roberta", "distilbert", "modernbert", "mpnet"),
        *("nomic_bert", "new", "gte", "mistral", "qwen2", "qwen3", "gemma3_text"),
    }
)
"""`model_type` that TEI lists under "Supported embeddings models"
(huggingface.co/docs/text-embeddings-inference/supported_models); `new` is Alibaba's GTE."""

TEI_CLASSIFIES = frozenset(
    {"bert", "camembert", "roberta", "xlm-roberta", "distilbert", "modernbert", "new", "gte"}
)
"""The same under "re-rankers and sequence classification models"."""

_SEEN_BY_NEITHER = frozenset({"t5", "clip", "vision-text-dual-encoder"})
"""Encoders that sentence-transformers wraps, and that neither TEI nor vLLM embeds with."""


def mlserver_variables(
    model: str, paths: Sequence[str], facts: ModelFacts | None = None
) -> dict[str, str]:
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
            if found and (pattern != "model.txt" or _of_lightgbm(facts)):
                place = f"{MODELS}/{found[0]}"
                if basename(found[0]) == "MLmodel":
                    place = place.removesuffix("/MLmodel")
                if implementation == _XGBOOST and _of_lightgbm(facts):
                    implementation = _LIGHTGBM
                return {
                    "MLSERVER_MODEL_NAME": model,
                    "MLSERVER_MODEL_URI": place,
                    "MLSERVER_MODEL_IMPLEMENTATION": implementation,
                }
    return {}


def _of_lightgbm(facts: ModelFacts | None) -> bool:
    return facts is not None and facts.format == "lightgbm"


def first_gguf(paths: Sequence[str]) -> str | None:
    """The GGUF file to load: the first part of a split one, never a projector."""
    found = [path for path in _matching(paths, "*.gguf") if "mmproj" not in basename(path)]
    return f"{MODELS}/{found[0]}" if found else None


_XGBOOST = "mlserver_xgboost.XGBoostModel"
_LIGHTGBM = "mlserver_lightgbm.LightGBMModel"

_MLSERVER = (
    ("mlserver_mlflow.MLflowRuntime", ("MLmodel",)),
    ("mlserver_sklearn.SKLearnModel", ("*.joblib", "*.pkl", "*.pickle")),
    (_XGBOOST, ("*.ubj", "model.json", "*.bst", "model.txt")),
)
"""MLServer's implementations. `.bst` may be XGBoost's or LightGBM's: its first bytes tell. Where
they were not read, XGBoost's, as in MLServer's own documentation."""


def _matching(paths: Iterable[str], pattern: str) -> list[str]:
    # Most patterns are names or endings, which are looked for much faster in a hundred thousand.
    fixed = pattern.removeprefix("*")
    if "*" in fixed:
        found = [path for path in paths if fnmatchcase(basename(path), pattern)]
    elif fixed != pattern:
        found = [path for path in paths if path.endswith(fixed)]
    else:
        inside = f"/{pattern}"
        found = [path for path in paths if path.endswith(inside) or path == pattern]
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
