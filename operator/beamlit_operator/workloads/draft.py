"""A revision's pod as what is said of it defines it, and the revision's name, made of exactly that.

Neither the placement that policies give, nor the version of this project's fetcher, nor how long a
start may take is part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import ModelDeployment
from beamlit_operator.api import labels as marks
from beamlit_operator.policy import Catalogue, normal, written
from beamlit_operator.workloads import names
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.merge import merged
from beamlit_operator.workloads.pods import FETCHING, pod_spec
from beamlit_operator.workloads.runtimes import Server

Json = dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """A pod, and the revision that it makes."""

    serving: Server
    deployment: ModelDeployment
    files: ModelFiles
    image: str
    catalogue: Catalogue
    pod: Json
    revision: names.RevisionName

    def annotations(self) -> dict[str, str]:
        """What the revision's Deployment tells of it."""
        if not self.serving.model_args:
            return {}
        return {marks.MODEL_ARGUMENTS: json.dumps(self.serving.model_args)}

    def as_before(self, live: Mapping[str, Mapping[str, Any]]) -> Draft:
        """The same, as it was drafted when the model's files could be read.

        A revision that exists tells which arguments they called for. It is this one if they make
        its name; so a store that does not answer for a moment starts no other.

        Args:
            live: Deployments in the cluster by name.
        """
        for name, each in live.items():
            told = (each["metadata"].get("annotations") or {}).get(marks.MODEL_ARGUMENTS)
            args = _arguments(told)
            if args is None:
                continue
            before = draft(
                self.deployment,
                self.serving.with_model_args(args),
                self.files,
                image=self.image,
                catalogue=self.catalogue,
            )
            if before.revision == name:
                return before
        return self


def draft(
    deployment: ModelDeployment,
    serving: Server,
    files: ModelFiles,
    *,
    image: str,
    catalogue: Catalogue,
) -> Draft:
    """The pod of a deployment's revision, before placement.

    Args:
        deployment: the deployment.
        serving: its model server.
        files: what that serves.
        image: this project's image, which fetches them.
        catalogue: the flavors.
    """
    template = deployment.spec.pod_template or {}
    pod = merged(pod_spec(serving, files, image=image), template.get("spec") or {})
    flavors = {
        normal(each.type, each.name, catalogue=catalogue) for each in deployment.spec.flavors
    }
    revision = names.revision_name(
        deployment.metadata.name,
        {
            "pod": _without_fetcher_image(pod, image),
            "metadata": template.get("metadata") or {},
            "flavors": written(flavors),
            # Only where it is not the default: names of revisions that exist stay.
            **({"appProtocol": serving.app_protocol} if serving.app_protocol else {}),
        },
    )
    return Draft(serving, deployment, files, image, catalogue, pod, revision)


def _arguments(told: Any) -> list[str] | None:
    try:
        found = json.loads(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return [str(each) for each in found] if isinstance(found, list) else None


def _without_fetcher_image(pod: Mapping[str, Any], image: str) -> Json:
    return {
        **pod,
        "initContainers": [
            {key: value for key, value in each.items() if key != "image"}
            if each.get("name") == FETCHING and each.get("image") == image
            else each
            for each in pod["initContainers"]
        ],
    }
