"""May this Model be deleted?

| deployments of it | annotation `beamlit.com/allow-deletion` | then    |
|-------------------|-----------------------------------------|---------|
| none              |                                         | allowed |
| some              | "true"                                  | allowed |
| some              | else                                    | refused |
"""

from __future__ import annotations

from beamlit_operator.api import Model
from beamlit_operator.controllers.admission.decision import (
    ALLOWED,
    Decision,
    Finding,
    counted,
    decided,
    some,
)
from beamlit_operator.controllers.admission.deletion import allowed_by_annotation, how_to
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held


def deletion(model: Held[Model], picture: Picture) -> Decision:
    """The decision about deleting a Model."""
    workspace, name = model.key
    users = [each.metadata.name for each in picture.deployments_of(workspace, name)]
    if not users or allowed_by_annotation(model.metadata):
        return ALLOWED
    finding = Finding(
        f"{counted(len(users), 'ModelDeployment')} of it would be left without files "
        f"({some(users)}): {how_to('model', model.metadata)}",
        frozenset(Key(Kind.MODEL_DEPLOYMENT, Workspace(workspace), user) for user in users[:4])
        | {Key(Kind.MODEL, Workspace(workspace), name)},
    )
    return decided(f"Model {name} is in use", refusals=[finding])
