"""How much memory of GPUs a model needs at least, and which flavors cannot hold it.

What a server keeps there (docs.vllm.ai, "Conserving Memory" and "Optimization and Tuning"; SGLang
and TEI do the same): the weights, shared among the GPUs; a cache of keys and values, of at least
one request; on each GPU, CUDA's context and what a step computes.

    weights     as they are stored; float32 is loaded as 16 bits (vLLM, and TEI on GPUs)
    cache       2 bytes for each of the numbers it keeps of a token, 2,048 tokens or the model's
                whole context if that is less; none for encoders
    overhead    512 MiB on each GPU, an assumption

This is a lower bound on purpose. What does not fit by it cannot start; what fits may still need a
shorter context or another GPU. The memory of a flavor is its data sheet's; only what a message
offers instead has to fit into the nine tenths of it that servers take by default.

| what is known                                                  | then                            |
|----------------------------------------------------------------|---------------------------------|
| the memory of a flavor, or the size of the weights, is unknown | it counts as large enough       |
| the server keeps weights elsewhere too (llama.cpp, or by its   | not asked                       |
| arguments), or is the user's own                               |                                 |
| annotation `beamlit.com/skip-memory-check: "true"`             | not asked                       |
| the revision's Deployment exists already                       | not refused: it was tried       |
| all flavors of the deployment are too small                    | refused, FlavorTooSmall         |
| some are                                                       | placed on the others only       |
| a type with variants, one of which is large enough             | large enough: nodes often tell  |
|                                                                | the type only                   |

Placing on fewer flavors than were asked for is a narrowing, as by a policy: it makes no other
revision. A revision that has replicas stays where it was put.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.api.facts import LARGEST, ModelFacts
from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy.algebra import ValueSet, within
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.locations import PolicyType, algebra, normal
from beamlit_operator.policy.placement import choose_hardware

CACHE_TOKENS = 2048
CACHE_VALUE_BYTES = 2
OVERHEAD_BYTES = 512 * 2**20

WHOLE = frozenset({"vllm", "sglang", "tei"})
"""Presets whose servers hold all weights in the memory of GPUs."""

_ELSEWHERE = (
    "--cpu-offload-gb",
    "--quantization",
    "-q",
    "--load-format",
    "--pipeline-parallel-size",
    "-pp",
    "--pp-size",
    "--dtype",
)
"""Arguments of a user's own by which a server needs less than the files say."""

_HALVED: Mapping[str, int] = {"float32": 2, "float64": 4}

_SIZES = (1, 2, 4, 8)
"""How many GPUs a node usually has."""

_SHARE = 0.9
"""What servers take of a GPU's memory by default (vLLM's `--gpu-memory-utilization`)."""

_OFFERS = 4
"""Flavors that a message names."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of the GPUs' memory, at least."""

    weights: int
    cache: int

    def on(self, gpus: int) -> int:
        """Of so many GPUs together."""
        return self.weights + self.cache + gpus * OVERHEAD_BYTES

    def fits(self, gpus: int, *, each: int) -> bool:
        """Whether so many GPUs with so many bytes each may hold it."""
        return self.on(gpus) <= gpus * each


def need(facts: ModelFacts | None) -> Need | None:
    """What a model needs; None if that is not known, or it is none for GPUs."""
    if facts is None or not facts.weight_bytes:
        return None
    if facts.format not in ("safetensors", "pytorch", "gguf") or facts.task in ("adapt", "image"):
        return None
    values = facts.kv_values_per_token if facts.task in ("generate", "transcribe") else None
    tokens = min(facts.context_length or CACHE_TOKENS, CACHE_TOKENS)
    cache = (values or 0) * tokens * CACHE_VALUE_BYTES
    return Need(facts.weight_bytes // _HALVED.get(facts.dtype or "", 1), cache)


def gpu_memory_bytes(facts: ModelFacts | None) -> int | None:
    """What one GPU needs at least to hold the model; None if unknown."""
    found = need(facts)
    return None if found is None or found.on(1) > LARGEST else found.on(1)


def told(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Fit:
    """Which of a deployment's flavors can hold its model.

    Attributes:
        flavors: those to place it on; as they were asked for, if none is too small.
        problem: why none can; a sentence for the condition.
    """

    flavors: tuple[Flavor, ...]
    problem: str | None = None


def fitting(
    facts: ModelFacts | None,
    *,
    runtime: str | None,
    container: Mapping[str, Any],
    annotations: Mapping[str, str],
    requested: tuple[Flavor, ...],
    allowed: ValueSet | None,
    catalogue: Catalogue,
) -> Fit:
    """What the table above says of a deployment.

    Args:
        facts: what the model's files say.
        runtime: the preset that serves it.
        container: the serving container: its command and arguments, and how many devices it takes.
        annotations: the deployment's.
        requested: the flavors to place it on, as far as policies allow them; none for any.
        allowed: the flavors that policies allow.
        catalogue: the memory of each.
    """
    arguments = [*(container.get("command") or ()), *(container.get("args") or ())]
    names = {str(argument).partition("=")[0] for argument in arguments}
    hardware = choose_hardware(allowed, requested, catalogue=catalogue).values or frozenset()
    if (
        annotations.get(labels.SKIP_MEMORY_CHECK) == "true"
        or runtime not in WHOLE
        or not names.isdisjoint(_ELSEWHERE)
        or any(value.kind != "gpu" for value in hardware)
    ):
        return Fit(requested)
    chosen = fit(
        facts,
        flavors=[Flavor(type="gpu", name=value.name) for value in sorted(hardware)],
        container=container,
        allowed=allowed,
        catalogue=catalogue,
    )
    narrowed = chosen.problem is not None or len(chosen.flavors) < len(hardware)
    return chosen if narrowed else Fit(requested)


def devices_asked(container: Mapping[str, Any], resource: str) -> int:
    """How many of a device a container asks for: one, if it does not say."""
    for part in ("limits", "requests"):
        resources = container.get("resources")
        amounts = resources.get(part) if isinstance(resources, Mapping) else None
        amount = str(amounts.get(resource, "")) if isinstance(amounts, Mapping) else ""
        if amount.isdecimal() and 0 < int(amount) <= 1024:
            return int(amount)
    return 1


def fit(
    facts: ModelFacts | None,
    *,
    flavors: Sequence[Flavor],
    container: Mapping[str, Any],
    allowed: ValueSet | None,
    catalogue: Catalogue,
) -> Fit:
    """Which of the flavors hold the model.

    Args:
        facts: what the model's files say.
        flavors: those that the deployment would be placed on.
        container: the serving container, which says how many devices it takes.
        allowed: the flavors that policies allow, for advice.
        catalogue: the memory of each.
    """
    found = need(facts)
    large: list[Flavor] = []
    small: list[str] = []
    for each in flavors:
        name = normal(each.type, each.name, catalogue=catalogue).name
        memory = catalogue.gpu_memory(name) if each.type == "gpu" else None
        if found is None or memory is None:
            large.append(each)
            continue
        gpus = devices_asked(container, catalogue.gpus[name].resource)
        if found.fits(gpus, each=memory[1]):
            large.append(each)
        else:
            small.append(f"{gpus} x gpu:{name} has {told(gpus * memory[1])}")
    if not small or found is None:
        return Fit(tuple(flavors))
    if large:
        return Fit(tuple(large))
    heads = facts.attention_heads if facts is not None else None
    asked = [normal(each.type, each.name, catalogue=catalogue).name for each in flavors]
    offers = list(_offers(found, asked=asked, heads=heads, allowed=allowed, catalogue=catalogue))
    would = (
        f"use {', or '.join(offers[:_OFFERS])} (the number goes into spec.runtime.resources.limits)"
        if offers
        else "none of the flavors that policies allow is known to hold it"
    )
    return Fit(
        (),
        f"the model needs at least {told(found.on(1))} of GPU memory, {told(found.weights)} of it "
        f"for the weights, and {'; '.join(small)}: {would}. Where the server keeps a part of it "
        f'elsewhere, set the annotation {labels.SKIP_MEMORY_CHECK}: "true"',
    )


def _offers(
    wanted: Need,
    *,
    asked: Sequence[str],
    heads: int | None,
    allowed: ValueSet | None,
    catalogue: Catalogue,
) -> Iterator[str]:
    """Flavors of the same devices that surely hold it, each with the fewest of them: those that
    were asked for, then the others, the smallest memory first."""
    parent = algebra(PolicyType.FLAVOR, catalogue).parent
    resources = {catalogue.gpus[name].resource for name in asked if name in catalogue.gpus}
    found = []
    for gpu in catalogue.gpus.values():
        memory = catalogue.gpu_memory(gpu.name)
        known = memory is not None and gpu.resource in resources
        several = len(catalogue.variants(gpu.name)) > 1
        if memory is None or not known or several:
            continue
        if not within(normal("gpu", gpu.name, catalogue=catalogue), allowed, parent):
            continue
        for count in _SIZES:
            shared = not heads or heads % count == 0
            if shared and wanted.fits(count, each=int(memory[0] * _SHARE)):
                found.append((gpu.name not in asked, count, memory[0], gpu.name))
                break
    for _, count, _, name in sorted(found):
        yield f"{count} x gpu:{name}"


def surely_bytes(
    facts: ModelFacts | None, flavors: Iterable[Flavor], *, gpus: int, catalogue: Catalogue
) -> int | None:
    """The memory that each GPU of a deployment has at least, in bytes; None if that is not known.

    By the flavors that it asks for and that hold the model: not by what policies leave of them,
    since what runs must not change with a policy.
    """
    found = need(facts)
    least: list[int] = []
    for each in flavors:
        name = normal(each.type, each.name, catalogue=catalogue).name
        memory = catalogue.gpu_memory(name) if each.type == "gpu" else None
        if memory is None:
            return None
        if found is None or found.fits(gpus, each=memory[1]):
            least.append(memory[0])
    return min(least, default=None)
