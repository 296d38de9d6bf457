"""What a review comes to, and the few words that all of them use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from beamlit_operator.controllers.keys import Key

SHOWN = 3
"""Names a sentence gives before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a write may happen, and what its author should know."""

    allowed: bool = True
    message: str = ""
    """Why not: object, field, what is wrong and what to do."""
    warnings: tuple[str, ...] = ()
    doubts: frozenset[Key] = frozenset()
    """Objects that the decision rests on and that may have changed a moment ago: worth a look at
    the API server before a person is refused, or told that something is missing."""


ALLOWED = Decision()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing. Equal findings are the same problem."""

    message: str
    doubts: frozenset[Key] = frozenset()


def decided(
    subject: str,
    *,
    refusals: Sequence[Finding] = (),
    tolerated: Iterable[Finding] = (),
    warnings: Iterable[Finding] = (),
) -> Decision:
    """The decision that findings come to.

    A refusal that was there before the write (``tolerated``) is told as a warning: an edit of
    something else must not be blocked by what an administrator changed since. Kubernetes calls it
    ratcheting.

    Args:
        subject: the object, as the message's first words.
        refusals: what the object must not do.
        tolerated: what it did already.
        warnings: what its author should know.
    """
    known = {each.message for each in tolerated}
    fresh = [each for each in refusals if each.message not in known]
    told = [each for each in refusals if each.message in known]
    notes = [*told, *warnings]
    doubts = frozenset(key for each in (*fresh, *notes) for key in each.doubts)
    lines = tuple(dict.fromkeys(each.message for each in notes))
    if not fresh:
        return Decision(warnings=lines, doubts=doubts)
    message = f"{subject}: " + "; ".join(dict.fromkeys(each.message for each in fresh))
    return Decision(allowed=False, message=message, warnings=lines, doubts=doubts)


def some(names: Sequence[str], *, more: Callable[[int], str] = "and {} more".format) -> str:
    """A few of the names in one phrase: ``a, b, c and 12 more``."""
    shown = list(names[:SHOWN])
    if len(names) > SHOWN:
        return f"{', '.join(shown)} {more(len(names) - SHOWN)}"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def counted(number: int, noun: str) -> str:
    """``1 deployment`` or ``5 deployments``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
