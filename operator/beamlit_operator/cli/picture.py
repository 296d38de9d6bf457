"""The picture of a rollout: who gets how much, which step it is at, what the analysis has seen."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import ModelDeployment
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.api.modeldeployment import RevisionStatus
from beamlit_operator.api.rollout import AnalysisStatus, HistoryEntry, RolloutStatus
from beamlit_operator.cli.listing import phase_text, short_version
from beamlit_operator.cli.orders import held, under_way

BAR = 20
"""Cells of a full bar: one for each 5 percent."""

ROLES = ("stable", "canary", None, "retiring")
"""In the order in which they are shown; None before the operator has said."""

ROLE_STYLES = {"stable": "green", "canary": "cyan", "retiring": "dim"}
PHASE_STYLES = {"Paused": "yellow", "Aborted": "red", "RolledBack": "red", "Failed": "red"}
OUTCOME_STYLES = {"Serving": "green", "Superseded": "dim"}


def picture(deployment: ModelDeployment) -> RenderableType:
    """The whole of it, for a screen."""
    status = deployment.status
    parts: list[RenderableType] = [_headline(deployment)]
    if status.rollout is not None and status.rollout.message:
        parts.append(Padding(Text(status.rollout.message), (0, 0, 0, 2), expand=False))
    if status.revisions:
        parts.append(Padding(revisions_table(status.revisions), (0, 0, 0, 2), expand=False))
    if status.rollout is not None:
        steps = _steps(deployment, status.rollout)
        if steps is not None:
            parts.append(Padding(steps, (0, 0, 0, 2), expand=False))
        if status.rollout.analysis is not None:
            text = Text("analysis ", style="dim").append(
                analysis_text(status.rollout.analysis), style="default"
            )
            parts.append(Padding(text, (0, 0, 0, 2), expand=False))
    if status.history:
        parts.append(Padding(history_table(status.history), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def summary(deployment: ModelDeployment) -> str:
    """The state in one line that changes when something happens."""
    rollout = deployment.status.rollout
    shares = ", ".join(f"{r.name} {r.traffic} %" for r in deployment.status.revisions if r.traffic)
    if rollout is None:
        return f"{deployment.metadata.name}: {_settled(deployment)}; {shares}"
    step = f" step {rollout.step} of {rollout.steps}" if rollout.step else ""
    return f"{deployment.metadata.name}: {rollout.phase}{step}; {shares}; {rollout.message}"


def _headline(deployment: ModelDeployment) -> Text:
    text = Text(deployment.metadata.name, style="bold")
    rollout = deployment.status.rollout
    if rollout is None:
        text.append(": ", style="default").append(phase_text(deployment.status.phase))
        return text.append(f", {_settled(deployment)}", style="default")
    style = PHASE_STYLES.get(rollout.phase, "cyan")
    text.append(": ", style="default").append(rollout.phase, style=style)
    if under_way(deployment) is not None and held(deployment, rollout):
        text.append(" by hand", style="default")
    if rollout.step is not None:
        text.append(f", step {rollout.step} of {rollout.steps}", style="default")
    return text.append(f", since {clock(rollout.since)}", style="default")


def _settled(deployment: ModelDeployment) -> str:
    if (deployment.status.observed_generation or 0) < deployment.metadata.generation:
        return "edited, and not looked at yet"
    ready = find(deployment.status.conditions, READY)
    if ready is not None and ready.status != "True":
        return f"{ready.reason}: {ready.message}"
    return "no rollout under way"


def revisions_table(revisions: Iterable[RevisionStatus]) -> Table:
    """One row per revision, with its share as a bar."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("ROLE", "REVISION", "VERSION", "READY", "TRAFFIC"):
        table.add_column(column, no_wrap=True)
    for each in sorted(revisions, key=lambda r: (ROLES.index(r.role), -r.traffic, r.name)):
        style = ROLE_STYLES.get(each.role or "", "")
        table.add_row(
            Text(each.role or "-", style=style),
            each.name,
            short_version(each.version),
            f"{each.ready_replicas}/{each.replicas}",
            bar(each.traffic, style=style),
        )
    return table


def bar(percent: int, *, style: str = "") -> Text:
    """A share as a bar; any share at all is at least one cell."""
    full = max(round(percent * BAR / 100), 1 if percent else 0)
    text = Text("█" * full, style=style)
    return text.append("·" * (BAR - full), style="dim").append(f" {percent:>3} %", style="default")


def _steps(deployment: ModelDeployment, rollout: RolloutStatus) -> Text | None:
    """The weights of all steps, with a mark at the present one."""
    asked = deployment.spec.rollout.steps if deployment.spec.rollout is not None else ()
    if not asked or rollout.step is None:
        return None
    text = Text("steps    ", style="dim")
    for number, step in enumerate(asked, start=1):
        pause = f" for {step.pause}" if step.pause else ""
        here = number == rollout.step
        word = f"[{step.weight} %{pause}]" if here else f"{step.weight} %{pause}"
        text.append(word, style="bold" if here else "dim" if number < rollout.step else "default")
        text.append(" > ", style="dim")
    return text.append("100 %", style="default")


def analysis_text(seen: AnalysisStatus) -> str:
    """What an analysis has seen, in one line."""
    words = [f"{seen.requests} requests"]
    if seen.error_percent is not None:
        words.append(f"{seen.error_percent:.3g} % errors")
    if seen.p95_milliseconds is not None:
        words.append(f"p95 {seen.p95_milliseconds:.3g} ms")
    if seen.stable_p95_milliseconds is not None:
        words.append(f"stable p95 {seen.stable_p95_milliseconds:.3g} ms")
    return ", ".join(words) + (f": {seen.message}" if seen.message else "")


def history_table(history: Iterable[HistoryEntry]) -> Table:
    """One row per entry, newest first."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("REVISION", "VERSION", "STARTED", "ENDED", "OUTCOME"):
        table.add_column(column, no_wrap=True)
    table.add_column("FROM AND WHY", overflow="fold")
    for each in history:
        why = [] if each.released_from is None else [_released(each)]
        why += [each.reason] if each.reason else []
        table.add_row(
            each.revision,
            short_version(each.version) or "-",
            clock(each.started_at),
            clock(each.ended_at) if each.ended_at else "-",
            Text(each.outcome, style=OUTCOME_STYLES.get(each.outcome, "red")),
            Text("; ".join(why) or "-"),
        )
    return table


def _released(entry: HistoryEntry) -> str:
    origin = entry.released_from
    if origin is None:
        return ""
    by = f" by {origin.by}" if origin.by else ""
    return f"released from {origin.environment}{by}"


def clock(at: datetime) -> str:
    """A time as people here write it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
