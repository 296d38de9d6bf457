"""Takes the time of what happens in the cluster while a request is held.

A pod's own timestamps have whole seconds. So what counts here is when each change arrives on a
watch, by the monotonic clock of the one who waits for the answer: a few milliseconds late, never
early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from beamlit_operator.api import labels
from beamlit_operator.kube import DEPLOYMENTS, PODS, Change, Json, KubeClient, Reflector

REQUEST_IN = "request in"
SCALED = "scaled up from zero"
ANSWERED = "answered"

BAR = 20
"""Characters that stand for the whole time; the table then fits 80 columns."""


@dataclass
class ColdStart:
    """When each step was first seen, in monotonic seconds, in the order in which they came."""

    on_step: Callable[[str], None] = lambda _: None
    seen: dict[str, float] = field(default_factory=dict)
    pod: Json | None = None
    """The pod that was started, as it last was."""

    def mark(self, step: str) -> None:
        """The step has happened now, unless it had before."""
        if step not in self.seen:
            self.seen[step] = time.monotonic()
            self.on_step(step)

    def follow_deployment(self, change: Change) -> None:
        """Sees a revision's Deployment scaled up."""
        if change.new is not None and change.new.get("spec", {}).get("replicas", 0) > 0:
            self.mark(SCALED)

    def follow_pod(self, change: Change) -> None:
        """Sees how far the pod is."""
        if change.new is None or "deletionTimestamp" in change.new["metadata"]:
            return
        self.pod = change.new
        # Two watches may tell of cause and effect in either order.
        self.mark(SCALED)
        for step in pod_steps(change.new):
            self.mark(step)


def pod_steps(pod: Json) -> list[str]:
    """The steps that this pod has behind it, in order."""
    steps = ["pod created"]
    status = pod.get("status", {})
    if pod.get("spec", {}).get("nodeName"):
        steps.append(f"pod scheduled to {pod['spec']['nodeName']}")
    fetching = status.get("initContainerStatuses") or ()
    ends = [each.get("state", {}).get("terminated") for each in fetching]
    if ends and all(end is not None and end.get("exitCode") == 0 for end in ends):
        steps.append("model files fetched")
    serving = status.get("containerStatuses") or ()
    if serving and all("running" in each.get("state", {}) for each in serving):
        steps.append("model server started")
    if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())):
        steps.append("model server ready")
    return steps


@asynccontextmanager
async def watched(
    client: KubeClient, *, workspace: str, deployment: str, on_step: Callable[[str], None]
) -> AsyncIterator[ColdStart]:
    """Follows the workload of a ModelDeployment inside the block."""
    start = ColdStart(on_step)
    selector = f"{labels.MODEL_DEPLOYMENT}={deployment}"
    reflectors = [
        Reflector(
            client, resource, namespace=workspace, label_selector=selector, on_change=on_change
        )
        for resource, on_change in (
            (DEPLOYMENTS, start.follow_deployment),
            (PODS, start.follow_pod),
        )
    ]
    tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
    try:
        for reflector in reflectors:
            await reflector.wait_synced()
        yield start
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def timeline(start: ColdStart) -> Table:
    """One row per step: when, and how long after the one before."""
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("STEP", no_wrap=True)
    table.add_column("AT", justify="right", no_wrap=True)
    table.add_column("AFTER", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    steps = sorted(start.seen.items(), key=lambda entry: entry[1])
    first, last = steps[0][1], steps[-1][1]
    before = first
    for step, at in steps:
        share = (at - before) / max(last - first, 1e-9)
        bold = "bold" if step in (REQUEST_IN, ANSWERED) else ""
        table.add_row(
            Text(step, style=bold),
            f"{(at - first) * 1000:,.0f} ms",
            f"+{(at - before) * 1000:,.0f} ms" if at > before else "",
            Text("█" * round(share * BAR), style="cyan"),
        )
        before = at
    return table
