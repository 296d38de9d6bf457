"""What a model's own files say about it: told in its status, and used to decide how to run it.

Every field is optional: what could not be read, or is not said, is absent and never guessed. The
limits are part of the schema, so whoever fills one in from files of strangers has to keep to them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from beamlit_operator.api.meta import Part

LARGEST = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly (RFC 8259, section 6)."""

Count = Annotated[int, Field(ge=0, le=LARGEST, json_schema_extra={"format": "int64"})]
Word = Annotated[str, Field(min_length=1, max_length=128)]


class ModelFacts(Part):
    """What the files of one revision say about the model."""

    format: Word | None = None
    """The form of the weights: `safetensors`, `gguf`, `pytorch`, `onnx`, `tensorrt`, `torchscript`,
    `torchserve`, `xgboost`, `lightgbm`, `sklearn`, `mlflow` or `keras`."""
    library: Word | None = None
    """What the files are made for: `transformers`, `sentence-transformers`, `diffusers`, `peft`, a
    flavor of MLflow, a backend of Triton."""
    architecture: Word | None = None
    """The architecture, as `config.json` or the GGUF header names it."""
    model_type: Word | None = None
    """`model_type` of `config.json`."""
    task: Word | None = None
    """What it is for: `generate`, `embed`, `rerank`, `classify`, `transcribe`, `image`, `adapt` (an
    adapter without its base model) or `predict` (tabular models)."""
    parameters: Count | None = None
    """How many parameters it has. Of weights that are packed by a quantization this is unknown."""
    dtype: Word | None = None
    """The type in which most of the weights are stored, such as `bfloat16`."""
    quantization: Word | None = None
    """How the weights are quantized: `awq`, `gptq`, `fp8`, `bitsandbytes`, a file type of GGUF."""
    context_length: Count | None = None
    """How many tokens it was made to take at once."""
    layers: Count | None = None
    """Its hidden layers."""
    hidden_size: Count | None = None
    """The width of its hidden layers."""
    attention_heads: Count | None = None
    """Attention heads of a layer; a multiple of the GPUs that can share the model."""
    kv_heads: Count | None = None
    """Key and value heads of a layer."""
    head_dim: Count | None = None
    """The width of a head."""
    kv_values_per_token: Count | None = None
    """How many numbers the cache of keys and values keeps of each token of a long request, in all
    layers; those that look back through a window only keep none."""
    weight_bytes: Count | None = None
    """How large the weights are that a server loads, without other copies in the same origin."""
    base_model: Word | None = None
    """What an adapter changes."""
    implementation: Word | None = None
    """The class that `model-settings.json` names for MLServer."""
    incomplete: str | None = Field(default=None, max_length=512)
    """Why some of it is not known, where files could not be read or understood."""
