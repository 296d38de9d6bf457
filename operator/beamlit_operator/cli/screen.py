"""How wide output is: people read on terminals of any width, and logs have none."""

from __future__ import annotations

from rich.console import Console

TEXT_WIDTH = 100
"""Columns of running text where there is no terminal."""

TABLE_WIDTH = 1000
"""Wider than any table of names and addresses, which must stay whole to be copied: as with kubectl,
a narrow terminal breaks the line."""


def text_console() -> Console:
    """For explanations: as wide as the terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=TEXT_WIDTH)


def table_console() -> Console:
    """For one line per object."""
    return Console(highlight=False, width=TABLE_WIDTH)
