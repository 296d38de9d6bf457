"""What the small files beside the weights say: `config.json` and its like, one function for each.

Pure. Each takes the decoded file of a stranger and returns fields of `ModelFacts` by name, as far
as they have the type they should; :func:`facts_of` keeps those within the limits of the schema.

The task follows from the architecture that `config.json` names (Transformers' naming):

| architecture                                          | task             |
|-------------------------------------------------------|------------------|
| ..ForCausalLM, ..LMHeadModel                          | generate         |
| Whisper..                                             | transcribe       |
| ..ForConditionalGeneration                            | generate         |
| the same, `is_encoder_decoder`: T5, BART, ...         | translate        |
| ..ForSequenceClassification, one label                | rerank           |
| ..ForSequenceClassification, more                     | classify         |
| ..ForTokenClassification, ..ForQuestionAnswering      | label            |
| ..ForImageClassification, ..ForObjectDetection, ...   | see              |
| ..ForMaskedLM, ..Model of an encoder                  | embed            |
| anything else                                         | -                |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from beamlit_operator.api.facts import LARGEST, ModelFacts

Fields = dict[str, Any]

_ENCODERS = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "nomic_bert"),
        *("mpnet", "electra", "deberta", "deberta-v2", "albert", "new", "gte", "ernie"),
        *("jina_bert", "eurobert"),
    }
)
"""`model_type` of encoders of text."""

_TASKS = (
    (r"Whisper.*", "transcribe"),
    (r".*(ForCausalLM|LMHeadModel|LMHeadCustomModel)", "generate"),
    (r".*(ForTokenClassification|ForQuestionAnswering)", "label"),
    (
        r".*For(Image|Video|Audio|Object|Semantic|Instance|Universal|Depth|Zero|MaskedImage)\w*",
        "see",
    ),
    (r"(ViT|CLIP|Siglip|Dino|Sam|Swin|ConvNext|Wav2Vec2|Hubert)\w*", "see"),
)


def facts_of(fields: Mapping[str, Any], *, problems: list[str] | None = None) -> ModelFacts:
    """The facts of fields; those that are beyond the limits of the schema are left out."""
    kept: Fields = {}
    for name, value in fields.items():
        if isinstance(value, str):
            word = "".join(c for c in value if c.isprintable()).strip()[:128]
            if word:
                kept[name] = word
        elif (number := _count(value)) is not None:
            kept[name] = number
    if problems:
        kept["incomplete"] = "; ".join(problems)[:512]
    return ModelFacts(**kept)


def of_config(config: Mapping[str, Any]) -> Fields:
    """Of Transformers' `config.json`."""
    text = _text_part(config)
    architecture = _first_word(config.get("architectures"))
    model_type = _word(config.get("model_type"))
    fields: Fields = {
        "library": "transformers" if architecture or model_type else None,
        "architecture": architecture,
        "model_type": model_type,
        "task": _task(architecture, model_type, config),
        "dtype": _word(_any(text, "dtype", "torch_dtype") or _any(config, "dtype", "torch_dtype")),
        "quantization": _quantization(config) or _quantization(text),
        "context_length": _number(text, *_CONTEXT),
        **_attention(text),
    }
    return {name: value for name, value in fields.items() if value is not None}


_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_target_positions",
)
"""Where vLLM looks for it too (`_get_and_verify_max_len`)."""


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the language model, in a configuration of several models."""
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, dict) and part:
            return part
    return config


def _task(
    architecture: str | None, model_type: str | None, config: Mapping[str, Any]
) -> str | None:
    if architecture is None:
        return None
    for pattern, task in _TASKS:
        if re.fullmatch(pattern, architecture):
            return task
    if architecture.endswith("ForConditionalGeneration"):
        return "translate" if config.get("is_encoder_decoder") is True else "generate"
    if architecture.endswith("ForSequenceClassification"):
        return "rerank" if _labels(config) == 1 else "classify"
    if model_type in _ENCODERS and re.fullmatch(r".*(Model|ForMaskedLM|PreTraining)", architecture):
        return "embed"
    return None


def _labels(config: Mapping[str, Any]) -> int | None:
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    return _count(config.get("num_labels"))


def _quantization(config: Mapping[str, Any]) -> str | None:
    for name in ("quantization_config", "compression_config"):
        part = config.get(name)
        if isinstance(part, dict):
            return _word(part.get("quant_method"))
    return None


def _attention(text: Mapping[str, Any]) -> Fields:
    """The sizes of which the cache of keys and values is made."""
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _number(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    kv_heads = _number(text, "num_key_value_heads", "num_kv_heads", "multi_query_group_num")
    if kv_heads is None:
        kv_heads = 1 if text.get("multi_query") is True else heads
    head = _number(text, "head_dim", "kv_channels", "d_kv")
    if head is None and heads and hidden:
        head = hidden // heads
    return {
        "layers": layers,
        "hidden_size": hidden,
        "attention_heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head,
        "kv_values_per_token": _kv_values(text, layers=layers, kv_heads=kv_heads, head=head),
    }


def _kv_values(
    text: Mapping[str, Any], *, layers: int | None, kv_heads: int | None, head: int | None
) -> int | None:
    """Numbers that the cache keeps of a token: a key and a value of each head in each layer. With
    latent attention (DeepSeek), one vector for all heads. Layers without attention keep none, and
    layers that look back through a window only keep none of what is out of it; where nothing tells
    which layers those are, it is not known."""
    if layers is None:
        return None
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        layers = sum(isinstance(k, str) and _keeps_all(k) for k in kinds)
    elif _has_window(text):
        return None
    latent, rope = _number(text, "kv_lora_rank"), _number(text, "qk_rope_head_dim")
    if latent is not None and rope is not None:
        return layers * (latent + rope)
    if kv_heads is None or head is None:
        return None
    return 2 * layers * kv_heads * head


def _keeps_all(kind: str) -> bool:
    """Whether a layer of this kind (transformers' `layer_types`) keeps all tokens of a request."""
    windowed = ("linear", "sliding", "chunked")
    return "attention" in kind and not any(word in kind for word in windowed)


def _has_window(text: Mapping[str, Any]) -> bool:
    if text.get("use_sliding_window") is False:
        return False
    names = ("sliding_window", "sliding_window_pattern", "attention_chunk_size")
    return any(_number(text, name) is not None for name in names)


def of_gguf(metadata: Mapping[str, Any]) -> Fields:
    """Of the metadata of a GGUF file (ggml's docs/gguf.md, "Standardized key-value pairs")."""
    architecture = _word(metadata.get("general.architecture"))
    own = {
        key.partition(".")[2]: value
        for key, value in metadata.items()
        if architecture and key.startswith(f"{architecture}.")
    }
    layers, heads = _number(own, "block_count"), _number(own, "attention.head_count")
    hidden = _number(own, "embedding_length")
    head = _number(own, "attention.key_length")
    if head is None and heads and hidden:
        head = hidden // heads
    kv = own.get("attention.head_count_kv", own.get("attention.head_count"))
    per_layer = (
        [n for each in kv if (n := _count(each)) is not None] if isinstance(kv, list) else []
    )
    kv_heads = max(per_layer, default=None) if isinstance(kv, list) else _count(kv)
    kv_values = None
    if _number(own, "attention.sliding_window") is not None:
        pass  # Which layers look back no further than that, only llama.cpp knows.
    elif head is not None and per_layer:
        kv_values = 2 * head * sum(per_layer)
    elif None not in (layers, kv_heads, head):
        kv_values = 2 * (layers or 0) * (kv_heads or 0) * (head or 0)
    file_type = metadata.get("general.file_type")
    fields: Fields = {
        "architecture": architecture,
        "task": "embed" if architecture in _GGUF_ENCODERS else "generate" if architecture else None,
        "parameters": _number(metadata, "general.parameter_count"),
        "quantization": _GGUF_TYPES.get(file_type) if isinstance(file_type, int) else None,
        "context_length": _number(own, "context_length"),
        "layers": layers,
        "hidden_size": hidden,
        "attention_heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head,
        "kv_values_per_token": kv_values,
    }
    return {name: value for name, value in fields.items() if value is not None}


_GGUF_ENCODERS = frozenset(
    ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert")
)

_GGUF_TYPES: Mapping[int, str] = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"), start=7)),
    **dict(enumerate(("Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS"), start=14)),
    **dict(enumerate(("IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL"), start=20)),
    **dict(enumerate(("IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16"), start=26)),
}
"""`llama_ftype` of llama.cpp's llama.h; 4 to 6 were removed there."""

_GGUF_NAMED = re.compile(r"[-._]((?:UD-)?(?:I?Q\d_?[A-Z0-9_]*|BF16|F16|F32|MXFP4))(?=[-.])", re.I)


def gguf_type_of_name(path: str) -> str | None:
    """The file type that a GGUF file's name tells: quantizing writes it at the metadata's end."""
    found = _GGUF_NAMED.findall(path)
    return str(found[-1]).upper() if found else None


def of_adapter(config: Mapping[str, Any]) -> Fields:
    """Of PEFT's `adapter_config.json`: an adapter alone."""
    return {
        "library": "peft",
        "task": "adapt",
        "base_model": _word(config.get("base_model_name_or_path")),
    }


def of_pipeline(index: Mapping[str, Any]) -> Fields:
    """Of diffusers' `model_index.json`."""
    name = _word(index.get("_class_name"))
    return {"library": "diffusers", "task": "image", "architecture": name}


def of_settings(settings: Mapping[str, Any]) -> Fields:
    """Of MLServer's `model-settings.json`."""
    return {"implementation": _word(settings.get("implementation")), "task": "predict"}


def of_sentences(config: Mapping[str, Any]) -> Fields:
    """Of sentence-transformers' `sentence_bert_config.json`: how much it takes at once."""
    length = _number(config, "max_seq_length")
    return {} if length is None else {"context_length": length}


def of_mlmodel(text: str) -> Fields:
    """Of MLflow's `MLmodel`: the flavors, `python_function` last.

    Read by its lines, which MLflow writes itself; YAML's aliases are not for files of strangers.
    """
    flavors: list[str] = []
    inside = False
    indent: str | None = None
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            inside = line.rstrip() == "flavors:"
        elif inside and (match := re.fullmatch(r"(\s+)([\w-]+):\s*", line)):
            indent = match[1] if indent is None else indent
            if match[1] == indent:
                flavors.append(match[2])
    named = sorted(set(flavors) - {"python_function"}) or sorted(set(flavors))
    fields: Fields = {"format": "mlflow", "task": "predict"}
    if named:
        fields["library"] = named[0]
    if "python_function" in flavors:
        fields["implementation"] = "python_function"
    return fields


def of_triton(text: str) -> Fields:
    """Of Triton's `config.pbtxt`: the backend, or the platform that stands for it."""
    found = re.search(r"^[ \t]*(?:backend|platform)[ \t]*:[ \t]*\"([\w-]{1,64})\"", text, re.M)
    return {"library": found[1]} if found else {}


def of_beginning(start: bytes) -> Fields:
    """Of the first bytes of a file of trees: who wrote it.

    XGBoost writes an object that begins with its learner, as JSON or UBJSON (its documentation,
    "Introduction to Model IO"); LightGBM's text begins with `tree` (its `gbdt_model_text.cpp`);
    XGBoost's old binary form begins with `binf`, or with numbers and nothing to tell it by.
    """
    head = start.lstrip()
    if head.startswith((b"tree\nversion=", b"tree\r\nversion=")):
        return {"format": "lightgbm", "library": "lightgbm", "task": "predict"}
    boosted = re.match(rb'\{\s*(L\x00*\x07|i\x07|"|U\x07)learner', head)
    if boosted or head.startswith(b"binf"):
        return {"format": "xgboost", "library": "xgboost", "task": "predict"}
    return {}


def _any(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    return next((n for name in names if (n := _count(config.get(name))) is not None), None)


def _count(value: object) -> int | None:
    """A whole number that makes sense as a size; some writers have `4096.0`."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
        return value
    return None


def _word(value: object) -> str | None:
    """A text that can be a name; the patterns here are for short ones."""
    return value if isinstance(value, str) and 0 < len(value) <= 128 else None


def _first_word(value: object) -> str | None:
    return _word(value[0]) if isinstance(value, list) and value else None
