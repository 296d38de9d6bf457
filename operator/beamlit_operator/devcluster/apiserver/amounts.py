"""Quantities that keep their notation: ``200Mi`` and ``56Mi`` are ``256Mi``, not ``268435456``."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from beamlit_operator.devcluster.quantities import parse

_DECIMAL: Final = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO: Final = Fraction(1, 10**9)


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in its base unit, and whether it is written in powers of 1024."""

    value: Fraction
    binary: bool = False

    @staticmethod
    def of(text: Any) -> Amount:
        """Reads a quantity.

        Raises:
            ValueError: it is none.
        """
        return Amount(parse(text), str(text).strip().endswith("i"))

    def __add__(self, other: Amount) -> Amount:
        """The sum in the notation of the first that is not zero."""
        return Amount(self.value + other.value, self.binary if self.value else other.binary)

    def __sub__(self, other: Amount) -> Amount:
        """The difference."""
        return Amount(self.value - other.value, self.binary if self.value else other.binary)

    def __str__(self) -> str:
        """The canonical form: the largest suffix with which the number is whole."""
        value = self.value
        if self.binary and value.denominator == 1 and abs(value) >= 1024:
            number, step = value.numerator, 0
            while number % 1024 == 0 and step < len(_BINARY) - 1:
                number, step = number // 1024, step + 1
            return f"{number}{_BINARY[step]}"
        number = -(-value // _NANO)
        if number == 0:
            return "0"
        step = 0
        while number % 1000 == 0 and step < len(_DECIMAL) - 1:
            number, step = number // 1000, step + 1
        return f"{number}{_DECIMAL[step]}"


NOTHING: Final = Amount(Fraction(0))
ONE: Final = Amount(Fraction(1))


def most(first: Amount, second: Amount) -> Amount:
    """The larger one."""
    return second if second.value > first.value else first
