"""How a longer story is told on a terminal, and just as readably in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from beamlit_operator.cli.screen import text_console


class Step:
    """Something under way."""

    def __init__(self, update: Callable[[str], None]) -> None:
        self.say = update
        """Shows what is being waited for now; on a terminal only."""
        self.done: str | None = None
        """What to print when it is done, instead of what it was called."""


class Stage:
    """Prints the story: sections, steps with a spinner while they last, and what they gave."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or text_console()
        self._section = 0

    def title(self, text: str, subtitle: str) -> None:
        """The first lines."""
        self._console.print(Text(text, style="bold"))
        self._console.print(Text(subtitle, style="dim"))

    def section(self, title: str) -> None:
        """Begins a part of the story."""
        self._section += 1
        self._console.print()
        self._console.print(Text(f"{self._section}  {title}", style="bold cyan"))

    def show(self, *what: RenderableType) -> None:
        """Prints tables and lines, indented below their section."""
        for each in what:
            self._console.print(Padding(each, (0, 0, 0, 3), expand=False))

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """Shows that something is under way, and then how long it took."""
        started = time.monotonic()
        with self._console.status(Text(text)) as status:
            step = Step(lambda now: status.update(Text(now, no_wrap=True, overflow="ellipsis")))
            try:
                yield step
            except BaseException:
                self.show(Text("✗ ", style="red").append(text, style="default"))
                raise
        seconds = time.monotonic() - started
        line = Text("✓ ", style="green").append(step.done or text, style="default")
        self.show(line.append(f"  {seconds:.1f} s", style="dim"))
