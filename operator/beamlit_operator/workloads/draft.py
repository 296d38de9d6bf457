"""A revision's pod as what is said of it defines it, and the revision's name, made of exactly that.

Neither the placement that policies give, nor the version of this project's fetcher, nor how long a
start may take is part of it. What the model's files say is, as far as it decides what serves them;
but what is learned of them, or cannot be read for a moment, starts no rollout by itself:

| what the files say | a revision that is there                                     | it is        |
|--------------------|--------------------------------------------------------------|--------------|
| is not known now   | is this one, by the facts that it was made with              | that one     |
| is not known now   | is this one, by the arguments that it was made with          | that one     |
| is not known now   | is another one of the same files, made by facts of them      | made by them |
| is known           | is this one                                                  | that one     |
| is known           | would be this one without it, was made so, and has a replica | that one     |
|                    | that is ready                                                |              |
| anything else      |                                                              | what is said |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import ModelDeployment
from beamlit_operator.api import labels as marks
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.policy import Catalogue, normal, written
from beamlit_operator.workloads import names
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.merge import merged
from beamlit_operator.workloads.pods import FETCHING, pod_spec
from beamlit_operator.workloads.runtimes import RuntimeProblem, Server

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
    facts: ModelFacts | None = None
    """What was known of the model's files when it was made, if that was all."""

    def annotations(self) -> dict[str, str]:
        """What the revision's Deployment tells of it."""
        told: dict[str, str] = {}
        if self.serving.model_args:
            told[marks.MODEL_ARGUMENTS] = json.dumps(self.serving.model_args)
        if self.facts is not None:
            told[marks.MODEL_FACTS] = json.dumps(self.facts.to_wire(), sort_keys=True)
        return told

    def is_of_files_of(self, live: Mapping[str, Any]) -> bool:
        """Whether it serves the same files as a revision that is there."""
        wanted = names.revision_labels(
            self.deployment, self.revision, version=self.files.revision
        ).get(marks.APP_VERSION)
        return (live["metadata"].get("labels") or {}).get(marks.APP_VERSION) == wanted

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


def settled(
    drafted: Callable[[ModelFacts | None], Draft],
    facts: ModelFacts | None,
    *,
    live: Mapping[str, Mapping[str, Any]],
) -> Draft:
    """The draft by the table of this module.

    Args:
        drafted: makes it of what the files say.
        facts: what they say, None if they were not read.
        live: Deployments in the cluster by name.

    Raises:
        RuntimeProblem: the runtime cannot be decided.
    """
    if not _is_known(facts):
        others: Draft | None = None
        for name, each in live.items():
            before = _or_none(drafted, known) if (known := _facts_of(each)) is not None else None
            if before is None:
                continue
            if before.revision == name:
                return before
            if before.is_of_files_of(each):
                others = before
        if (now := _or_none(drafted, facts)) is None or now.revision not in live:
            earlier = now.as_before(live) if now is not None else None
            if earlier is not None and earlier.revision in live:
                return earlier
            if others is not None:
                return others
        return drafted(facts).as_before(live)
    now = drafted(facts)
    if now.revision not in live:
        plain = now.serving.with_model_args(())
        for before in (
            draft(now.deployment, plain, now.files, image=now.image, catalogue=now.catalogue),
            _or_none(drafted, None),
        ):
            found = live.get(before.revision) if before is not None else None
            if before is not None and found is not None and _serves_without(found):
                return before
    return now


def _is_known(facts: ModelFacts | None) -> bool:
    return facts is not None and facts.incomplete is None


def _or_none(
    drafted: Callable[[ModelFacts | None], Draft], facts: ModelFacts | None
) -> Draft | None:
    try:
        return drafted(facts)
    except RuntimeProblem:
        return None


def _facts_of(live: Mapping[str, Any]) -> ModelFacts | None:
    """What was known when a revision was made."""
    told = (live["metadata"].get("annotations") or {}).get(marks.MODEL_FACTS)
    try:
        return ModelFacts.model_validate_json(told) if isinstance(told, str) else None
    except ValueError:
        return None


def _serves_without(live: Mapping[str, Any]) -> bool:
    """Whether a revision was made without facts, and serves."""
    told = marks.MODEL_FACTS in (live["metadata"].get("annotations") or {})
    return not told and bool((live.get("status") or {}).get("readyReplicas"))


def draft(
    deployment: ModelDeployment,
    serving: Server,
    files: ModelFiles,
    *,
    image: str,
    catalogue: Catalogue,
    facts: ModelFacts | None = None,
) -> Draft:
    """The pod of a deployment's revision, before placement.

    Args:
        deployment: the deployment.
        serving: its model server.
        files: what that serves.
        image: this project's image, which fetches them.
        catalogue: the flavors.
        facts: what the server was chosen by.
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
    known = facts if _is_known(facts) else None
    return Draft(serving, deployment, files, image, catalogue, pod, revision, known)


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
