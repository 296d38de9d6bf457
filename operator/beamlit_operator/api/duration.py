"""Durations as Kubernetes users write them: ``90s``, ``1m30s``, ``500ms``, ``2h``."""

from __future__ import annotations

import re

PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
"""The subset of Go's ``time.ParseDuration`` that is accepted: not negative, with a unit."""

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """The duration in seconds.

    Raises:
        ValueError: not a duration; the message says how to write one.
    """
    if not re.fullmatch(PATTERN, text) or text.endswith("\n"):
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit, such as 90s or 1m30s"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
