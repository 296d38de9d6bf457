"""The way to delete what is in use on purpose."""

from __future__ import annotations

from beamlit_operator.api import labels
from beamlit_operator.api.meta import ObjectMeta


def allowed_by_annotation(metadata: ObjectMeta) -> bool:
    """Whether a person has said that the object may go although it is in use."""
    return metadata.annotations.get(labels.ALLOW_DELETION) == "true"


def how_to(kind: str, metadata: ObjectMeta) -> str:
    """What to do, as the end of a sentence."""
    return (
        f"delete those first, or allow it with `kubectl annotate {kind}.{labels.GROUP} "
        f"{metadata.name} -n {metadata.namespace} {labels.ALLOW_DELETION}=true`"
    )
