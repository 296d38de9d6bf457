"""Which arguments a model's own files call for, besides a preset's.

A preset's row names them (`argsFromModel`); this module decides which are added, and with what
number. The rule: only where a server without it would not start, or would do something else than
its model is for.

| argument       | is added when                                            | `{context}`          |
|----------------|----------------------------------------------------------|----------------------|
| `gpuContext`   | the GPUs' memory does not hold a request of the model's  | what it holds        |
|                | whole length                                             |                      |
| `cpuContext`   | the same of the container's limit, without a GPU         | what it holds        |
| `longContext`  | the model takes more tokens than the server does by      | the model's length   |
|                | itself, and the GPU's memory has room for so many        |                      |
| `embedding`    | the model's task is to embed                             |                      |
| `reranking`    | the model's task is to rerank                            |                      |

What is not known adds nothing: without facts, of GPUs whose memory nobody told, in a container that
has no limit of memory. A user's own `args` or `command` come without any of it.

Not here, because the servers of the presets do it: the type of the weights (vLLM and SGLang take
float16 on GPUs without bfloat16), the quantization (it stands in config.json), requests too long
for the memory (SGLang), the layers and the context that fit a GPU (llama.cpp).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.workloads.gpumemory import need
from beamlit_operator.workloads.presets import CONTEXT, Preset

MEMORY_SHARE = 0.9
"""The part of a GPU's memory that servers take: vLLM's `--gpu-memory-utilization`, by default."""

OVERHEAD_BYTES = 2 * 2**30
"""Of each GPU: CUDA's context, graphs and the largest step's activations. An assumption: a few GiB
is what vLLM reports for models of 7 to 70 billion parameters."""

CPU_OVERHEAD_BYTES = 512 * 2**20
"""Of a server on CPUs, besides weights and cache. An assumption."""

CACHE_VALUE_BYTES = 2
"""Of a number in the cache of keys and values: half precision, as the servers have by default."""

BATCH_VALUES = 64
"""How many times its hidden size a token takes while it is in a batch, in half precision. An
assumption: the feed-forward layer's four times in and out, and the attention's, doubled."""

SERVERS_TOKENS = 16384
"""The tokens that a server takes by itself where `longContext` is: TEI's `--max-batch-tokens`."""

STEP = 256
"""What a shortened context is a multiple of."""

SHORTEST = 1024
"""Tokens below which shortening helps nobody: such a model does not fit, and that is told."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where the model is to fit.

    Attributes:
        gpus: how many GPUs share it; 0 for none.
        gpu_bytes: the memory of one of them, None if unknown.
        limit_bytes: the container's limit of memory, None if it has none.
    """

    gpus: int = 0
    gpu_bytes: int | None = None
    limit_bytes: int | None = None


def model_arguments(preset: Preset, facts: ModelFacts | None, room: Room) -> tuple[str, ...]:
    """The arguments to add to a preset's.

    Args:
        preset: the model server's row.
        facts: what the model's files say, None if they were not read.
        room: where it is to fit.
    """
    if facts is None:
        return ()
    rows = preset.args_from_model
    found: tuple[str, ...] = ()
    if facts.task == "embed":
        found += rows.embedding
    if facts.task == "rerank":
        found += rows.reranking
    short = rows.gpu_context if room.gpus else rows.cpu_context
    if short and (tokens := _shortened(facts, room)) is not None:
        found += _filled(short, tokens)
    if rows.long_context and (tokens := _lengthened(facts, room)) is not None:
        found += _filled(rows.long_context, tokens)
    return found


def sharing_problem(preset: Preset, facts: ModelFacts | None, gpus: int) -> str | None:
    """Why so many GPUs cannot share a model; None if they can, or it is not known."""
    heads = facts.attention_heads if facts is not None else None
    shared = any("{gpus}" in text for text in preset.args_gpu)
    if not heads or gpus < 2 or not shared or heads % gpus == 0:
        return None
    fitting = [str(count) for count in range(1, min(heads, 16) + 1) if heads % count == 0]
    return (
        f"spec.runtime.resources asks for {gpus} GPUs, which cannot share the model's {heads} "
        f"attention heads: ask for {', '.join(fitting[:-1])} or {fitting[-1]}, or say in "
        f"spec.runtime.args how they are to be used"
    )


def _shortened(facts: ModelFacts, room: Room) -> int | None:
    """The tokens that fit, if those are fewer than the model takes."""
    values, weights, context = (
        facts.kv_values_per_token,
        facts.weight_bytes,
        facts.context_length,
    )
    if not values or weights is None or not context:
        return None
    if room.gpus:
        if room.gpu_bytes is None:
            return None
        usable = room.gpus * (int(room.gpu_bytes * MEMORY_SHARE) - OVERHEAD_BYTES)
        # As servers load them: float32 as 16 bits.
        weights = found.weights if (found := need(facts)) is not None else weights
        if facts.kv_heads and room.gpus > facts.kv_heads:
            # Heads that are fewer than GPUs are kept more than once.
            values = values * room.gpus // facts.kv_heads
    elif room.limit_bytes is not None:
        usable = room.limit_bytes - CPU_OVERHEAD_BYTES
    else:
        return None
    tokens = (usable - weights) // (values * CACHE_VALUE_BYTES) // STEP * STEP
    return tokens if SHORTEST <= tokens < context else None


def _lengthened(facts: ModelFacts, room: Room) -> int | None:
    """All tokens that the model takes, if those are more than the server does by itself."""
    context, hidden, weights = facts.context_length, facts.hidden_size, facts.weight_bytes
    if not context or context <= SERVERS_TOKENS or not hidden or weights is None:
        return None
    if not room.gpus or room.gpu_bytes is None:
        return None
    needed = weights + OVERHEAD_BYTES + context * hidden * BATCH_VALUES * CACHE_VALUE_BYTES
    return context if needed <= room.gpu_bytes * MEMORY_SHARE else None


def _filled(texts: tuple[str, ...], tokens: int) -> tuple[str, ...]:
    return tuple(text.replace(CONTEXT, str(tokens)) for text in texts)


_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]i?|k)?")
_UNITS = {
    "": 1,
    "k": 10**3,
    **{unit: 1000 ** (power + 1) for power, unit in enumerate("KMGTPE")},
    **{f"{unit}i": 1024 ** (power + 1) for power, unit in enumerate("KMGTPE")},
}


def memory_limit(resources: Mapping[str, Any]) -> int | None:
    """The limit of memory in a container's resources, in bytes; None if there is none.

    A form that only the API server reads, such as `1e9`, counts as none.
    """
    limits = resources.get("limits")
    found = limits.get("memory") if isinstance(limits, Mapping) else None
    match = _AMOUNT.fullmatch(str(found).strip()) if found is not None else None
    return int(float(match[1]) * _UNITS[match[2] or ""]) if match else None
