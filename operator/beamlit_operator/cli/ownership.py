"""Whose fields they are: would somebody put back what a command is about to change?

Read from `metadata.managedFields`. A person's earlier edit is a person's to change; what a tool
declares it declares again, from Git or a chart, minutes later.

| manager                                              | operation | a change of its field |
|------------------------------------------------------|-----------|-----------------------|
| kubectl, beamlit, of the time before it was recorded | any       | is made               |
| Argo CD, Flux, Helm, Terraform, Pulumi, Config Sync  | any       | is refused            |
| another                                              | Apply     | is refused            |
| another                                              | Update    | is made               |

A field that nobody has set yet is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from beamlit_operator.cli.differences import ABSENT, Difference
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import Json

_PEOPLE = ("kubectl", "beamlit", "before-first-apply")
_TOOLS = (
    "argocd",
    "kustomize-controller",
    "helm",
    "flux",
    "terraform",
    "hashicorp",
    "pulumi",
    "configsync",
)
"""How the managers begin that are known to declare their fields again, in lower case."""


def declared_elsewhere(
    live: Json, changes: Iterable[Difference]
) -> Iterator[tuple[str, Difference]]:
    """The changes that a tool would undo, each with the tool's field manager."""
    entries = (live.get("metadata") or {}).get("managedFields") or ()
    tools = [each for each in entries if not each.get("subresource") and _declares(each)]
    for change in changes:
        if change.before is ABSENT:
            continue
        for entry in tools:
            if _holds(entry.get("fieldsV1") or {}, change.path):
                yield str(entry["manager"]), change
                break


def require_free(live: Json, changes: Iterable[Difference], *, instead: str) -> None:
    """Refuses a change that a tool would undo.

    Args:
        live: the object, with its managed fields.
        changes: what is about to be changed in it.
        instead: what to do, as a part of a sentence.

    Raises:
        CommandError: a tool declares some of the fields; names them and it.
    """
    held = list(declared_elsewhere(live, changes))
    if not held:
        return
    managers = " and ".join(sorted({manager for manager, _ in held}))
    fields = ", ".join(sorted({change.field for _, change in held}))
    name = live["metadata"]["name"]
    raise CommandError(
        f"ModelDeployment {name}: {fields} is declared by {managers}, which would put it back. "
        f"Nothing was changed. {instead}, or take the fields over with --force-conflicts."
    )


def _declares(entry: Json) -> bool:
    manager = str(entry.get("manager", "")).lower()
    if manager.startswith(_PEOPLE):
        return False
    return manager.startswith(_TOOLS) or entry.get("operation") == "Apply"


def _holds(tree: dict[str, Any], path: Iterable[str]) -> bool:
    """Whether a tree of `fieldsV1` holds the field. What is below a leaf is held with it, and an
    entry of a list with the list."""
    for name in path:
        if name.startswith("["):
            return True
        if f"f:{name}" not in tree:
            return False
        tree = tree[f"f:{name}"]
        if not tree:
            return True
    return True
