"""What every benchmark prints and writes: one table, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

BUILD = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True)
class Aim:
    """What a figure is to be: at most so much, or with ``most=False`` at least."""

    bound: float
    most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {_number(self.bound)}"


@dataclass(frozen=True)
class Row:
    """One figure, with what it is compared to if there is something to compare it to."""

    what: str
    value: float
    unit: str
    baseline: str | None = None
    baseline_value: float | None = None
    aim: Aim | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met, as precisely as is printed; None if there is none. That of a row
        with a baseline is about the ratio."""
        if self.aim is None:
            return None
        value = float(f"{self.value if self.ratio is None else self.ratio:.3g}")
        return value <= self.aim.bound if self.aim.most else value >= self.aim.bound


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def publish(name: str, rows: list[Row], notes: list[str]) -> None:
    """Prints the table and writes ``build/bench/NAME.json``."""
    table = Table(title=f"bench-{name}", title_justify="left")
    aims = any(row.aim is not None for row in rows)
    headings = ("what", "value", "unit", "baseline", "value", "ratio", *(("aim",) if aims else ()))
    for heading in headings:
        right = heading in ("value", "ratio")
        table.add_column(heading, justify="right" if right else "left")
    for row in rows:
        table.add_row(
            row.what,
            _number(row.value),
            row.unit,
            row.baseline or "",
            _number(row.baseline_value),
            _number(row.ratio),
            *((_judged(row),) if aims else ()),
        )
    console = Console(width=max(Console().width, 110))
    console.print(table)
    for note in notes:
        console.print(f"[dim]{note}[/dim]")
    BUILD.mkdir(parents=True, exist_ok=True)
    document = {
        "rows": [_entry(row) for row in rows],
        "machine": machine(),
        "notes": notes,
    }
    (BUILD / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def _entry(row: Row) -> dict[str, object]:
    entry = {**asdict(row), "ratio": row.ratio}
    del entry["aim"]
    return entry if row.aim is None else {**entry, "aim": str(row.aim), "met": row.met}


def _judged(row: Row) -> str:
    return "" if row.aim is None else f"{row.aim} {'met' if row.met else 'MISSED'}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
