"""Writes that commands make to ModelDeployments: checked first, whole, and only on what was read.

One merge patch with the resourceVersion of what was read: server-side apply could not take away a
field that somebody else has set, and what is put into an environment has to be all of it.

| refused with 409, and read again the object has  | then                                       |
|--------------------------------------------------|--------------------------------------------|
| the spec and annotations that were read          | the patch is sent again: only its status   |
|                                                  | moved, as it does while a rollout goes on  |
| others                                           | refused: the person saw something else     |
"""

from __future__ import annotations

from beamlit_operator.cli.cluster import explained
from beamlit_operator.cli.differences import differences, merge_patch
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.ownership import require_free
from beamlit_operator.kube import MODEL_DEPLOYMENTS, ApiError, HttpClient, Json

FIELD_MANAGER = "beamlit-cli"

# A status that moves between reading and writing so often is not met by chance.
_ATTEMPTS = 5


async def create(client: HttpClient, body: Json, *, dry_run: bool) -> None:
    """Creates a ModelDeployment, or with ``dry_run`` asks the API server whether it could.

    Raises:
        CommandError: it is refused; says why.
    """
    try:
        await client.create(MODEL_DEPLOYMENTS, body, field_manager=FIELD_MANAGER, dry_run=dry_run)
    except ApiError as error:
        raise CommandError(explained(error)) from error


async def edit(
    client: HttpClient,
    live: Json,
    desired: Json,
    *,
    instead: str,
    force_conflicts: bool,
    dry_run: bool = False,
) -> None:
    """Makes ``desired`` of a ModelDeployment, as far as metadata and spec go.

    Args:
        client: the cluster.
        live: the object as it was read.
        desired: the same with changes.
        instead: what to do when a tool declares the fields, as a part of a sentence.
        force_conflicts: change them all the same.
        dry_run: only ask whether it could be done.

    Raises:
        CommandError: it is refused, or somebody changed the object since; says why.
    """
    before, after = ({"spec": each.get("spec") or {}} for each in (live, desired))
    if not force_conflicts:
        require_free(live, differences(before, after), instead=instead)
    patch = merge_patch(before, after)
    annotations = merge_patch(_annotations(live), _annotations(desired))
    if not patch and not annotations:
        return
    if annotations:
        patch["metadata"] = {"annotations": annotations}
    metadata = live["metadata"]
    seen = live
    for _ in range(_ATTEMPTS):
        patch.setdefault("metadata", {})["resourceVersion"] = seen["metadata"]["resourceVersion"]
        try:
            await client.merge_patch(
                MODEL_DEPLOYMENTS,
                metadata["name"],
                patch,
                metadata.get("namespace"),
                field_manager=FIELD_MANAGER,
                dry_run=dry_run,
            )
            return
        except ApiError as error:
            if not error.conflict:
                raise CommandError(explained(error)) from error
        seen = await _again(client, live)
        if _meant(seen) != _meant(live):
            break
    raise CommandError(
        f"ModelDeployment {metadata['name']} was changed in this moment by somebody else; "
        f"nothing was done: run the command again"
    )


async def _again(client: HttpClient, live: Json) -> Json:
    metadata = live["metadata"]
    try:
        return await client.get(MODEL_DEPLOYMENTS, metadata["name"], metadata.get("namespace"))
    except ApiError as error:
        raise CommandError(explained(error)) from error


def _meant(item: Json) -> tuple[object, ...]:
    """What a person decides about; an object of the same name that was created since is another."""
    return (item["metadata"].get("uid"), item.get("spec") or {}, _annotations(item))


def _annotations(item: Json) -> Json:
    return dict(item["metadata"].get("annotations") or {})
