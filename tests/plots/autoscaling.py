"""Draws the traces of the simulated autoscaler that docs/autoscaling.md shows.

    python -m tests.plots.autoscaling [FOLDER]

Each scenario becomes NAME.csv, the trace, and NAME.svg, its plot. Both depend on the code alone;
``tests/unit/autoscaling/test_plots.py`` fails when what is committed is not what the code does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.plots.svg import Line, Spans, chart
from tests.support.autoscaling import TICK, Row
from tests.support.autoscaling_scenarios import SCENARIOS, Scenario

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images" / "autoscaling"

HEADER = "second,demand,needed,held,desired,replicas,ready,panicking,reason"


def trace(rows: Sequence[Row]) -> str:
    """The trace as CSV."""
    lines = [HEADER]
    for row in rows:
        reason = row.reason.value if row.reason is not None else ""
        lines.append(
            f"{row.second},{row.demand:.3f},{row.needed:.3f},{row.held:.3f},{row.desired},"
            f"{row.replicas},{row.ready},{int(row.panicking)},{reason}"
        )
    return "\n".join(lines) + "\n"


def plot(scenario: Scenario, rows: Sequence[Row]) -> str:
    """The trace as SVG. Colours are Okabe and Ito's: everybody can tell them apart."""
    return chart(
        scenario.title,
        [
            Line("the load needs", "#999999", [(row.second, row.needed) for row in rows], 1.5),
            Line("wanted", "#0072b2", [(row.second, row.desired) for row in rows], 3.0),
            Line("serving", "#e69f00", [(row.second, row.ready) for row in rows], 1.5),
        ],
        Spans("panic", "#fbe9e0", _spans(rows)),
        x_label="seconds",
        y_label="replicas",
    )


def _spans(rows: Sequence[Row]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for row in rows[:-1]:
        if row.panicking and spans and spans[-1][1] == row.second:
            spans[-1] = (spans[-1][0], row.second + TICK)
        elif row.panicking:
            spans.append((row.second, row.second + TICK))
    return spans


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        rows = scenario.simulation.run()
        (folder / f"{name}.csv").write_text(trace(rows))
        (folder / f"{name}.svg").write_text(plot(scenario, rows))
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
