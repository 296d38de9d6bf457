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
class Row:
    """One figure, with what it is compared to if there is something to compare it to."""

    what: str
    value: float
    unit: str
    baseline: str | None = None
    baseline_value: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline_value if self.baseline_value else None


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
    for heading in ("what", "value", "unit", "baseline", "value", "ratio"):
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
        )
    console = Console(width=max(Console().width, 110))
    console.print(table)
    for note in notes:
        console.print(f"[dim]{note}[/dim]")
    BUILD.mkdir(parents=True, exist_ok=True)
    document = {
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "machine": machine(),
        "notes": notes,
    }
    (BUILD / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
