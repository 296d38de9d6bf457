"""What served before: `status.history`, newest first and bounded. Pure.

| what happened                            | the history                                           |
|------------------------------------------|-------------------------------------------------------|
| a revision took over                     | an entry for it (Serving); the one before: Superseded |
| one was aborted, rolled back or failed   | an entry that says so, and why                        |
| nothing, and the serving one is missing  | an entry for it: the history was lost, or is new      |
| nothing, and what defines it is written  | its entry says the same from now on                   |
| in other words                           |                                                       |
| edited after a release                   | not from that release: another entry has it already   |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.api.modeldeployment import ModelDeploymentSpec
from beamlit_operator.api.rollout import MAX_HISTORY, HistoryEntry, ReleasedFrom
from beamlit_operator.rollout.revisions import Ending

DEFINING = ("version", "runtime", "podTemplate", "flavors", "policies", "withoutPolicies")
"""The fields of a spec that define what runs."""

MAX_SPEC_BYTES = 16 * 1024


def defining(spec: ModelDeploymentSpec) -> dict[str, Any] | None:
    """The part of a spec that defines what runs; None when it is too large to keep."""
    wire = spec.to_wire()
    part = {name: wire[name] for name in DEFINING if wire.get(name)}
    return part if len(json.dumps(part)) <= MAX_SPEC_BYTES else None


def released_from(annotations: Mapping[str, str]) -> ReleasedFrom | None:
    """Where an object's version was released from, by its annotations."""
    environment = annotations.get(labels.RELEASED_FROM, "")[:253]
    if not environment:
        return None
    return ReleasedFrom(
        environment=environment,
        revision=_short(annotations.get(labels.RELEASED_REVISION), 255),
        at=_short(annotations.get(labels.RELEASED_AT), 64),
        by=_short(annotations.get(labels.RELEASED_BY), 253),
    )


def _short(text: str | None, most: int) -> str | None:
    return text[:most] if text else None


def written(
    history: Iterable[HistoryEntry],
    *,
    endings: Iterable[Ending],
    serving: str | None,
    desired: str,
    versions: Mapping[str, str],
    spec: dict[str, Any] | None,
    released: ReleasedFrom | None,
    now: datetime,
) -> tuple[HistoryEntry, ...]:
    """The history from now on.

    Args:
        history: as it was.
        endings: what happened now, in this order.
        serving: the stable revision; None while nothing can be placed.
        desired: the revision that ``spec`` and ``released`` are of.
        versions: of the origin, by revision.
        spec: what defines the desired revision.
        released: where it was released from.
        now: the time.
    """
    now = now.replace(microsecond=0)
    entries = list(history)
    if any(each.released_from == released and each.revision != desired for each in entries):
        # The annotations stay when somebody edits what was released.
        released = None

    def entry(revision: str, **more: Any) -> HistoryEntry:
        mine = {"spec": spec, "released_from": released} if revision == desired else {}
        version = versions.get(revision, "")[:255]
        return HistoryEntry(revision=revision, version=version, **mine, **more)

    def end_serving(reason: str, *, but: str | None = None) -> None:
        for index, each in enumerate(entries):
            if each.outcome == "Serving" and each.revision != but:
                ended = {"outcome": "Superseded", "ended_at": now, "reason": reason[:1024]}
                entries[index] = each.model_copy(update=ended)

    for ending in endings:
        began = ending.started_at or now
        if ending.outcome == "Superseded":
            end_serving(ending.reason)
        elif ending.outcome == "Serving":
            end_serving(f"{ending.revision} took over")
            entries.insert(0, entry(ending.revision, started_at=began, outcome="Serving"))
        else:
            entries.insert(
                0,
                entry(
                    ending.revision,
                    started_at=began,
                    ended_at=now,
                    outcome=ending.outcome,
                    reason=ending.reason[:1024],
                ),
            )
    if serving is not None:
        end_serving(f"{serving} took over", but=serving)
        at = next((i for i, each in enumerate(entries) if each.outcome == "Serving"), None)
        if at is None:
            entries.insert(0, entry(serving, started_at=now, outcome="Serving"))
        elif serving == desired:
            said: dict[str, Any] = {"spec": spec, "released_from": released}
            if versions.get(serving):
                said["version"] = versions[serving][:255]
            entries[at] = entries[at].model_copy(update=said)
    return _bounded(entries)


def _bounded(entries: list[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    """The newest ones; the one that serves is never dropped."""
    while len(entries) > MAX_HISTORY:
        index = len(entries) - 1
        if entries[index].outcome == "Serving":
            index -= 1
        del entries[index]
    return tuple(entries)


def served(history: Iterable[HistoryEntry], revision: str) -> bool:
    """Whether a revision had all the traffic and lost it by no fault of its own: the last that is
    known of it counts."""
    for each in history:
        if each.revision == revision:
            return each.outcome == "Superseded"
    return False
