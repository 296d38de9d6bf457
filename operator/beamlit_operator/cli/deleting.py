"""``beamlit delete model``: with its users named, and only on purpose while there are any.

| deployments of it | --force | then                                                          |
|-------------------|---------|---------------------------------------------------------------|
| none              |         | deleted                                                       |
| some              | no      | refused, here and by the admission webhook                    |
| some              | yes     | marked as allowed for that webhook, and deleted               |
"""

from __future__ import annotations

from beamlit_operator.api import labels
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.editing import FIELD_MANAGER
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import MODEL_DEPLOYMENTS, MODELS


async def delete_model_command(name: str, target: Target, *, force: bool) -> None:
    """Deletes a Model.

    Raises:
        CommandError: it is in use, or does not exist.
    """
    workspace = target.workspace
    async with connection(target) as client:
        model = await client.get(MODELS, name, workspace)
        users = sorted(
            each["metadata"]["name"]
            for each in (await client.list(MODEL_DEPLOYMENTS, workspace)).items
            if each["spec"].get("model") == name
        )
        if users and not force:
            raise CommandError(
                f"Model {name} is in use by {', '.join(users)}: delete those first. With --force "
                f"it goes all the same, and what runs goes on, but nothing new can be started"
            )
        if users:
            allowed = {"metadata": {"annotations": {labels.ALLOW_DELETION: "true"}}}
            await client.merge_patch(MODELS, name, allowed, workspace, field_manager=FIELD_MANAGER)
        await client.delete(MODELS, name, workspace, uid=model["metadata"]["uid"])
    print(f"Model {name} deleted" + (f"; left without it: {', '.join(users)}" if users else ""))
