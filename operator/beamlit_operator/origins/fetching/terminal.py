"""One bar that moves, for somebody who fetches by hand and looks on.

Pods have no terminal: they write lines, and never import what draws (a tenth of a second, which a
caller would wait for in every cold start).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from beamlit_operator.origins.sizes import mebibytes

INTERVAL_SECONDS = 0.1


def somebody_looks(environment: Mapping[str, str]) -> bool:
    """Whether standard error is a terminal on which a line can be drawn again."""
    return sys.stderr.isatty() and environment.get("TERM", "dumb") != "dumb"


class Bar:
    """Takes lines as any report does, and besides them how far the fetch is."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._drawn: Any = None
        self._task: Any = None

    def __call__(self, line: str) -> None:
        """A line of its own, above the bar."""
        text = f"fetching {self._place}: {line}"
        if self._drawn is not None:
            self._drawn.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def moved(self, measured: Mapping[str, int]) -> None:
        """So far it is now; the first call draws the bar."""
        files = f"{measured['filesDone']} of {measured['files']} files"
        if self._drawn is None:
            self._drawn = _drawn()
            self._drawn.start()
            self._task = self._drawn.add_task(
                "fetching",
                total=max(measured["totalBytes"], 1),
                completed=measured["fetchedBytes"],
                files=files,
            )
        self._drawn.update(self._task, completed=measured["fetchedBytes"], files=files)

    def end(self) -> None:
        """Leaves the bar as it is; the cursor is where it should be."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None


def _drawn() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """In the unit that sizes are told in everywhere else; rich's own has powers of 1000."""

        def render(self, task: Task) -> Text:
            found = task.finished_speed or task.speed
            return Text(
                "" if found is None else f"{mebibytes(found)}/s", style="progress.data.speed"
            )

    return Progress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[files]}"),
        console=Console(stderr=True),
    )
