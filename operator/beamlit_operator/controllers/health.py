"""Is the operator alive, and is it ready? Pure; docs/operations.md has the same table.

Alive: no only where a restart mends it.

| keys wait for a worker | work began or ended within :data:`STUCK_AFTER` | works | alive |
|------------------------|------------------------------------------------|-------|-------|
| no                     |                                                |       | yes   |
| yes                    | yes                                            |       | yes   |
| yes                    |                                                | no    | yes   |
| yes, as long           | no                                             | yes   | no    |

"Works" is no on an operator that stands by: its keys wait until it leads. A request to an API
server that hangs ends after a minute, so its workers end their work all the same, and a restart
would mend nothing.

Ready, the first that applies:

| what is so                                                          | ready |
|---------------------------------------------------------------------|-------|
| the first listing of our kinds is under way                         | no    |
| a watch has no first listing yet                                    | no    |
| the admission webhook has no certificate yet                        | no    |
| a watch has heard nothing for :data:`STALE_AFTER`                   | no    |
| else                                                                | yes   |

Readiness only chooses who answers the webhook and how fast a rollout goes on; an operator that is
not ready goes on reconciling. One that hears nothing must not decide about what others write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STUCK_AFTER = 120.0
"""Seconds without any progress while keys wait, after which the process counts as stuck. Twice what
a request to the API server may take."""

STALE_AFTER = 600.0
"""Seconds of silence after which a watch counts as lost. A healthy one is ended by the API server
every 300 s at the latest and asked for anew; a dead connection is found after 330 s."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a process is. Times in seconds."""

    working: bool
    """Whether it takes keys: it leads, or needs no Lease."""
    oldest: float
    """For how long the oldest key has waited; 0 when none waits."""
    idle: float
    """Since work last began or ended."""
    listed: bool = True
    unsynced: int = 0
    """Watches without a first listing."""
    webhook: bool = True
    """Whether the webhook serves, or is not asked for."""
    silent: Mapping[str, float] | None = None
    """For how long each watch has heard nothing."""


def not_alive(vitals: Vitals) -> str:
    """Why a restart would help; empty when it would not."""
    if vitals.working and vitals.oldest > STUCK_AFTER and vitals.idle > STUCK_AFTER:
        return (
            f"a key has waited for {vitals.oldest:.0f} s, and no work has begun or ended for "
            f"{vitals.idle:.0f} s"
        )
    return ""


def not_ready(vitals: Vitals) -> str:
    """What is missing; empty when nothing is."""
    if not vitals.listed:
        return "the first listing is under way"
    if vitals.unsynced:
        return f"{vitals.unsynced} watches have no first listing yet"
    if not vitals.webhook:
        return "the admission webhook has no certificate yet"
    stale = {name: age for name, age in (vitals.silent or {}).items() if age > STALE_AFTER}
    if stale:
        name = max(stale, key=lambda each: stale[each])
        return f"the watch of {name} has heard nothing for {stale[name]:.0f} s"
    return ""
