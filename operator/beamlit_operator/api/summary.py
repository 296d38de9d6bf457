"""What a model's status says in numbers, in words of people: sizes, counts, one line of facts."""

from __future__ import annotations

from beamlit_operator.api.facts import ModelFacts

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def size(count: int) -> str:
    """Bytes, with one decimal of the largest unit that fits."""
    # Rounded before the unit is chosen: 1,048,575 bytes are 1.0 MiB and not 1024.0 KiB.
    for unit, of in _UNITS:
        if round(count / of, 1) >= 1:
            return f"{count / of:.1f} {unit}"
    return counted(count, "byte")


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def facts_line(facts: ModelFacts) -> str:
    """What a model's files say, the most telling first."""
    told = [
        facts.architecture or facts.library,
        facts.task,
        _parameters(facts.parameters) if facts.parameters else None,
        f"{size(facts.weight_bytes)} of {facts.format or 'weights'}"
        if facts.weight_bytes
        else facts.format,
        facts.dtype,
        facts.quantization,
        counted(facts.context_length, "token") if facts.context_length else None,
        f"not all is known: {facts.incomplete}" if facts.incomplete else None,
    ]
    return ", ".join(each for each in told if each)


def _parameters(count: int) -> str:
    if count < 10**6:
        return counted(count, "parameter")
    number, word = (count / 10**9, "billion") if count >= 10**9 else (count / 10**6, "million")
    return f"{number:.2f} {word} parameters"
