"""What ``beamlit rollout undo`` puts back into the spec. Pure.

| --to      | a rollout is under way or ended badly | goes back to                               |
|-----------|---------------------------------------|--------------------------------------------|
| REVISION  |                                       | that entry of the history                  |
| not given | yes                                   | the stable revision                        |
| not given | no                                    | the newest that served before              |

What is put back is what defined the revision: version, runtime, pod template, flavors and policies.
Where the spec named no version then, and the origin has moved since, the version is pinned.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from beamlit_operator.api import Model, ModelDeployment, labels
from beamlit_operator.api.rollout import HistoryEntry
from beamlit_operator.cli.differences import Difference, differences
from beamlit_operator.kube import Json

FIELDS = ("version", "runtime", "podTemplate", "flavors", "policies", "withoutPolicies")
"""What of the spec a history entry keeps."""

_RELEASE = {
    labels.RELEASED_FROM: "environment",
    labels.RELEASED_REVISION: "revision",
    labels.RELEASED_AT: "at",
    labels.RELEASED_BY: "by",
}


class UndoRefusedError(Exception):
    """There is nothing to go back to; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What an undo would make of the deployment."""

    to: HistoryEntry
    after: Json
    changes: tuple[Difference, ...]


def undo(live: Json, model: Model | None, *, to: str | None) -> Undo:
    """The deployment with an earlier revision's spec.

    Args:
        live: the ModelDeployment as it is.
        model: its Model, if there is one.
        to: the revision's name, or what follows the last dash in it; None for the last good one.

    Raises:
        UndoRefusedError: there is no such revision, or nothing to undo.
    """
    deployment = ModelDeployment.model_validate(live)
    name = deployment.metadata.name
    entry = _entry(deployment, to)
    if entry.spec is None:
        raise UndoRefusedError(
            f"the spec of {entry.revision} was too large for the history of {name}: apply its "
            f"manifest again"
        )
    after = copy.deepcopy(live)
    for field in FIELDS:
        after["spec"].pop(field, None)
        if field in entry.spec:
            after["spec"][field] = copy.deepcopy(entry.spec[field])
    if "version" not in entry.spec and _moved(deployment, entry):
        after["spec"]["version"] = entry.version
    changes = tuple(differences({"spec": live["spec"]}, {"spec": after["spec"]}))
    if not changes:
        raise UndoRefusedError(
            f"the spec of {name} is what it was with {entry.revision}: nothing to undo in it. If "
            f"something else runs, Model {deployment.spec.model} has changed"
        )
    _require_files(after["spec"].get("version"), model)
    annotations = {
        key: value
        for key, value in (live["metadata"].get("annotations") or {}).items()
        if key not in _RELEASE
    }
    if entry.released_from is not None:
        told = entry.released_from.to_wire()
        annotations |= {key: told[field] for key, field in _RELEASE.items() if field in told}
    after["metadata"]["annotations"] = annotations
    return Undo(entry, after, changes)


def _entry(deployment: ModelDeployment, to: str | None) -> HistoryEntry:
    """The entry to go back to."""
    name, status = deployment.metadata.name, deployment.status
    if to is not None:
        for each in status.history:
            if to in (each.revision, each.revision.rpartition("-")[2]):
                return each
        there = ", ".join(each.revision for each in status.history) or "none"
        raise UndoRefusedError(f"the history of {name} has no revision {to}; there: {there}")
    if status.rollout is not None:
        stable = status.rollout.stable
        for each in status.history:
            if each.revision == stable:
                return each
        raise UndoRefusedError(f"the history of {name} has no entry for {stable}, which serves")
    serving = status.serving.name if status.serving is not None else None
    for each in status.history:
        if each.outcome == "Superseded" and each.revision != serving:
            return each
    raise UndoRefusedError(f"{name} has served no other revision before: nothing to undo")


def _moved(deployment: ModelDeployment, entry: HistoryEntry) -> bool:
    """Whether the origin holds another version now than it did then."""
    status = deployment.status
    current = status.serving.name if status.serving is not None else None
    if status.rollout is not None:
        current = status.rollout.canary
    versions = [each.version for each in status.revisions if each.name == current]
    return bool(entry.version) and versions != [entry.version]


def _require_files(version: str | None, model: Model | None) -> None:
    """Refuses a version whose files an S3 prefix or a claim holds no longer."""
    if model is None or version is None or model.status.origin is None:
        return
    origin = model.spec.origin
    holds_one = origin is not None and (origin.s3 is not None or origin.pvc is not None)
    if not holds_one or model.status.origin.revision == version:
        return
    raise UndoRefusedError(
        f"{model.status.origin.uri} does not hold version {version} any more, but "
        f"{model.status.origin.revision}: put the files back, or each version at a place of "
        f"its own"
    )
