"""``beamlit doctor`` on the screen, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from beamlit_operator.cli.doctor import admission, cluster, components, objects
from beamlit_operator.cli.doctor.findings import Check, Level, Result, verdict

CHECKS: Sequence[tuple[str, Check]] = (
    ("kubernetes", cluster.kubernetes),
    ("clocks", cluster.clocks),
    ("definitions", cluster.definitions),
    ("rights", components.rights),
    ("processes", components.processes),
    ("versions", components.versions),
    ("leader", components.leader),
    ("webhook", admission.webhook),
    ("certificates", admission.certificates),
    ("pod policy", admission.pod_policy),
    ("gateway", components.gateway),
    ("authentication", components.authentication),
    ("nodes", cluster.nodes),
    ("workspaces", objects.workspaces),
    ("environments", objects.environments),
    ("origins", objects.origins),
    ("prefetch", objects.prefetches),
    ("runtimes", objects.runtimes),
    ("deployments", objects.deployments),
)
"""Every check, from the ground up: what stands further down rests on what is above."""

SIGNS = {
    Level.OK: ("✓", "green"),
    Level.WARNING: ("!", "yellow"),
    Level.PROBLEM: ("✗", "bold red"),
    Level.UNKNOWN: ("?", "dim"),
}


def show(console: Console, results: Sequence[Result]) -> None:
    """One line for each finding, with what to do below it, and the sum."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for result in results:
        name = result.check
        for finding in result.findings:
            sign, style = SIGNS[finding.level]
            quiet = finding.level is Level.UNKNOWN
            text = Text(finding.message, style="dim" if quiet else "")
            if finding.fix:
                text.append("\n→ ", style="cyan").append(finding.fix, style="cyan")
            table.add_row(Text(sign, style=style), name, text)
            name = ""
    console.print(table)
    console.print()
    console.print(summary(results))


def summary(results: Sequence[Result]) -> Text:
    """The sum in one line."""
    counts = verdict(results)
    parts: list[tuple[str, str]] = []
    for level, one, many, style in (
        (Level.PROBLEM, "problem", "problems", "bold red"),
        (Level.WARNING, "warning", "warnings", "yellow"),
        (Level.UNKNOWN, "check could not be done", "checks could not be done", "dim"),
    ):
        if count := counts[level]:
            parts.append((f"{count} {one if count == 1 else many}", style))
    if not parts:
        return Text("All is well.", style="green")
    text = Text()
    for number, (part, style) in enumerate(parts):
        text.append(", " if number else "").append(part, style=style)
    return text.append(".")


def as_json(results: Sequence[Result]) -> str:
    """For programs: stable names, one entry for each finding."""
    entries = [
        {"check": result.check, "level": str(each.level), "message": each.message}
        | ({"fix": each.fix} if each.fix else {})
        for result in results
        for each in result.findings
    ]
    counts = {str(level): count for level, count in verdict(results).items()}
    return json.dumps({"checks": entries, "counts": counts}, indent=2)
