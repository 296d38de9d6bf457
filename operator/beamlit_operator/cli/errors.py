"""Failures that a person can act on: a sentence and an exit status, never a traceback."""

from __future__ import annotations

FAILED = 1
"""Exit status: it was tried and did not work, or the answer is no."""

BAD_INPUT = 2
"""Exit status: what was asked makes no sense as written."""


class CommandError(Exception):
    """Ends the command with a message for the person who ran it.

    Attributes:
        message: what is wrong and what to do.
        status: the exit status.
    """

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
