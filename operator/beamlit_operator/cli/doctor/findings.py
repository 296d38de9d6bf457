"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from beamlit_operator.cli.doctor.picture import Picture, UnreadError


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works; something should be looked at."""
    PROBLEM = "problem"
    """Something does not work."""
    UNKNOWN = "unknown"
    """The check could not be done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, and what to do about it."""

    level: Level
    message: str
    fix: str = ""


Check = Callable[[Picture], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Result:
    """The findings of one check."""

    check: str
    findings: tuple[Finding, ...]


def ok(message: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, message)


def warning(message: str, fix: str) -> Finding:
    """It works, but."""
    return Finding(Level.WARNING, message, fix)


def problem(message: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, message, fix)


def unknown(message: str) -> Finding:
    """It could not be found out; the message says why."""
    return Finding(Level.UNKNOWN, message)


def run(checks: Sequence[tuple[str, Check]], picture: Picture) -> list[Result]:
    """Every check's findings. One that lacks what it looks at says so."""
    results = []
    for name, check in checks:
        found: list[Finding] = []
        try:
            found.extend(check(picture))
        except UnreadError as error:
            found.append(unknown(str(error)))
        results.append(Result(name, tuple(found)))
    return results


def verdict(results: Iterable[Result]) -> dict[Level, int]:
    """How many findings of each level there are."""
    counts = dict.fromkeys(Level, 0)
    for result in results:
        for finding in result.findings:
            counts[finding.level] += 1
    return counts
