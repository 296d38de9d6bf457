"""Files of models, small and real: what stands before the weights is as the libraries write it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from beamlit_operator.origins.listing import OriginFile

LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
"""`config.json` of Llama 3.1 8B, what matters of it."""

BERT: Mapping[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}

_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int]]], *, weights: bool = True) -> bytes:
    """A safetensors file of tensors by name: type and shape. Without ``weights``, its header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = _SIZES[dtype]
        for each in shape:
            size *= each
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end if weights else 0)


def gguf(metadata: Mapping[str, Any], *, version: int = 3, weights: int = 64) -> bytes:
    """A GGUF file with metadata: texts, whole numbers, floats, and lists of one of them."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def typed(value: Any) -> tuple[int, bytes]:
        match value:
            case bool():
                return 7, struct.pack("<?", value)
            case int():
                return 4, struct.pack("<I", value)
            case float():
                return 6, struct.pack("<f", value)
            case str():
                return 8, text(value)
            case _:
                kinds = [typed(each) for each in value]
                kind = kinds[0][0]
                return 9, struct.pack("<IQ", kind, len(kinds)) + b"".join(b for _, b in kinds)

    pairs = b"".join(
        text(key) + struct.pack("<I", kind) + content
        for key, value in metadata.items()
        for kind, content in [typed(value)]
    )
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(metadata)) + pairs + bytes(weights)


def config(settings: Mapping[str, Any], **more: Any) -> bytes:
    """A `config.json`."""
    return json.dumps({**settings, **more}).encode()


def listed(files: Mapping[str, bytes], **sizes: int) -> tuple[OriginFile, ...]:
    """A listing; ``sizes`` (dots and slashes as ``_``) are said instead of the real ones."""
    return tuple(
        OriginFile(path, sizes.get(path.replace(".", "_"), len(content)), f"etag-{path}", path)
        for path, content in sorted(files.items())
    )
