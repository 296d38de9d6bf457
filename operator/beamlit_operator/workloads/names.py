"""Names, labels and owners of the objects made for a ModelDeployment."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NewType

from beamlit_operator.api import ModelDeployment, labels

RevisionName = NewType("RevisionName", str)

HASH_LENGTH = 8
MAX_NAME = 63 - HASH_LENGTH - 1
"""The longest ModelDeployment name: with the revision's hash it must be a Service's name."""

_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def name_problem(name: str) -> str | None:
    """Why a ModelDeployment of this name cannot have Services, if so."""
    if len(name) <= MAX_NAME and _SERVICE_NAME.fullmatch(name):
        return None
    return (
        f"metadata.name becomes the name of Services: use at most {MAX_NAME} lower-case letters, "
        f"digits and dashes, starting with a letter"
    )


def digest(content: Any) -> str:
    """A short hash of decoded JSON; equal content gives equal hashes, whatever its key order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def revision_name(deployment: str, content: Any) -> RevisionName:
    """The name of the revision that runs `content`."""
    return RevisionName(f"{deployment[:MAX_NAME].rstrip('-')}-{digest(content)}")


def common_labels(deployment: ModelDeployment) -> dict[str, str]:
    """Labels of every object made for the deployment. Never a copy of the parent's own labels."""
    return {
        labels.NAME: deployment.spec.model,
        labels.INSTANCE: deployment.metadata.name,
        labels.COMPONENT: "model-server",
        labels.PART_OF: "beamlit",
        labels.MANAGED_BY: labels.OPERATOR_NAME,
        labels.MODEL: deployment.spec.model,
        labels.ENVIRONMENT: deployment.spec.environment,
        labels.MODEL_DEPLOYMENT: deployment.metadata.name,
    }


def revision_labels(
    deployment: ModelDeployment, revision: RevisionName, *, version: str
) -> dict[str, str]:
    """Labels of the objects of one revision; `version` is the origin's immutable revision."""
    # `sha256:` is no label value; the first digits of a commit or digest tell versions apart.
    short = re.sub(r"[^A-Za-z0-9]", "", version.rpartition(":")[2])[:12]
    return {
        **common_labels(deployment),
        **({labels.APP_VERSION: short} if short else {}),
        labels.REVISION: revision,
    }


def selector(revision: RevisionName) -> dict[str, str]:
    """The labels that select the pods of a revision, and of no other."""
    return {labels.REVISION: revision}


def routed(deployment: ModelDeployment, revision: RevisionName) -> dict[str, str]:
    """The labels by which a Service finds pods: all those by which the operator finds them.

    A pod that somebody makes by hand is either watched over or not served.
    """
    return {
        labels.MANAGED_BY: labels.OPERATOR_NAME,
        labels.MODEL_DEPLOYMENT: deployment.metadata.name,
        **selector(revision),
    }


def owner_reference(deployment: ModelDeployment) -> Mapping[str, Any]:
    """The owner of everything made for the deployment: deleting it deletes them."""
    return {
        "apiVersion": deployment.api_version,
        "kind": deployment.kind,
        "name": deployment.metadata.name,
        "uid": deployment.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
