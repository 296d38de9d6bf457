"""Kubernetes quantities (``500m``, ``2Gi``, ``1e3``) as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

_PATTERN = re.compile(r"([+-]?\d*\.?\d*)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")

_FACTORS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{letter: Fraction(1000 ** (i + 1)) for i, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Fraction(1024 ** (i + 1)) for i, letter in enumerate("KMGTPE")},
}


def parse(text: str | int | float) -> Fraction:
    """The number a quantity stands for, in its base unit.

    Raises:
        ValueError: it is not a quantity.
    """
    found = _PATTERN.fullmatch(str(text).strip())
    if found is None or not any(letter.isdigit() for letter in found[1]):
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 1Gi")
    number, suffix = Fraction(found[1]), found[2]
    if suffix is None:
        return number
    if suffix in _FACTORS:
        return number * _FACTORS[suffix]
    return number * Fraction(10) ** int(suffix[1:])


def rounded_up(amount: Fraction, divisor: str | int = 1) -> int:
    """``amount`` in units of ``divisor``, rounded up as the downward API does."""
    unit = parse(divisor) or Fraction(1)
    return ceil(amount / unit)
