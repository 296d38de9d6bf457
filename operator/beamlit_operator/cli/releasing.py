"""What a release does: one environment's version of a model, put into another. Pure.

*The version* is what runs: the immutable revision of the files, the runtime and the pod template.
How it scales, where it may run and how its endpoint answers belong to the environment:

| field of the destination's spec        | exists already       | is created                      |
|----------------------------------------|----------------------|---------------------------------|
| version                                | the source's, pinned | the source's, pinned            |
| runtime, podTemplate                   | the source's         | the source's                    |
| policies, withoutPolicies              | as they are          | none                            |
| the same, with policies                | the source's         | the source's                    |
| flavors, serverlessConfig, endpoint    | as they are          | the source's, but never public  |
| enabled, rollout, anything else        | as it is             | the default                     |

What is released is what has been seen to work, so the source must have one revision that gets all
its requests, made of its spec as it is:

| the source                                         | then                                      |
|----------------------------------------------------|-------------------------------------------|
| was edited, and the operator has not looked yet    | refused: try again                        |
| has no revision that gets requests                 | refused, with what its condition says     |
| rolls out, or its last rollout was undone          | refused: let it end first                 |
| serves files that an S3 prefix holds no longer     | refused: nobody could fetch them          |
| is not ready                                       | released, with a warning                  |
| else                                               | released                                  |
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from beamlit_operator.api import Model, ModelDeployment, labels
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.cli.differences import Difference, differences
from beamlit_operator.kube import Json

VERSION_FIELDS = ("runtime", "podTemplate")
POLICY_FIELDS = ("policies", "withoutPolicies")
FIRST_FIELDS = ("flavors", "serverlessConfig", "endpoint")
"""What a new destination begins with; from then on they are its own."""

_ORDERS = "beamlit.com/rollout-"
_NOT_OURS = ("kubectl.kubernetes.io/last-applied-configuration",)


class ReleaseRefusedError(Exception):
    """The release makes no sense as things are; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a release would make of the destination."""

    before: Json | None
    """The destination as it is; None if there is none."""
    after: Json
    """The destination as it will be, with what the API server has told about it before."""
    version: str
    """The immutable revision that is released."""
    warnings: tuple[str, ...] = ()
    changes: tuple[Difference, ...] = field(default=())
    """What changes in the spec."""

    @property
    def name(self) -> str:
        """The destination's name."""
        return str(self.after["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants what."""

    model: str
    source: str
    """The environment to release from."""
    destination: str
    """The environment to release to."""
    by: str | None
    """The user's name; None if the API server does not tell it."""
    at: datetime
    with_policies: bool = False
    name: str | None = None
    """What a new destination is called."""


def plan(order: Order, model: Model, deployments: Collection[Json]) -> Release:
    """The release, from all ModelDeployments of the workspace.

    Raises:
        ReleaseRefusedError: it makes no sense; says why.
    """
    source = _deployment(deployments, order.model, order.source)
    if source is None:
        there = sorted(_spec(d).get("environment", "") for d in deployments if _of(d, order.model))
        where = f"it is deployed in {', '.join(there)}" if there else "it is deployed nowhere"
        raise ReleaseRefusedError(
            f"model {order.model} has no deployment in environment {order.source}; {where}"
        )
    revision, version, warnings = _what_runs(source, model)
    destination = _deployment(deployments, order.model, order.destination)
    after = copy.deepcopy(destination) if destination else _new(order, source, deployments)
    spec = after["spec"]
    taken = VERSION_FIELDS + (POLICY_FIELDS if order.with_policies else ())
    if destination is None:
        taken += FIRST_FIELDS
    for name in taken:
        spec.pop(name, None)
        if name in _spec(source):
            spec[name] = copy.deepcopy(_spec(source)[name])
    if destination is None:
        # Whoever may call it is for each environment to say.
        (spec.get("endpoint") or {}).pop("public", None)
    spec["version"] = version
    changes = tuple(differences(_spec(destination or {}), spec, ("spec",)))
    if changes:
        annotations = dict(after["metadata"].get("annotations") or {})
        annotations.pop(labels.RELEASED_BY, None)
        annotations[labels.RELEASED_FROM] = order.source
        annotations[labels.RELEASED_REVISION] = revision
        annotations[labels.RELEASED_AT] = order.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if order.by is not None:
            annotations[labels.RELEASED_BY] = order.by
        after["metadata"]["annotations"] = annotations
    if spec.get("enabled") is False:
        warnings += (f"{after['metadata']['name']} is deactivated: nothing runs until activated",)
    return Release(destination, after, version, warnings, changes)


def manifest(release: Release) -> Json:
    """The destination as one keeps it in Git: without what the API server and orders add."""
    metadata = release.after["metadata"]
    kept = {
        name: value
        for name, value in (metadata.get("annotations") or {}).items()
        if name not in _NOT_OURS and not name.startswith(_ORDERS)
    }
    clean: Json = {"name": metadata["name"]}
    for name in ("namespace", "labels"):
        if metadata.get(name):
            clean[name] = metadata[name]
    if kept:
        clean["annotations"] = kept
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": clean,
        "spec": release.after["spec"],
    }


def _what_runs(source: Json, model: Model) -> tuple[str, str, tuple[str, ...]]:
    """The revision that serves, its version, and what to warn of."""
    parsed = ModelDeployment.model_validate(source)
    name, status = parsed.metadata.name, parsed.status
    ready = find(status.conditions, READY)
    because = f"{ready.reason}: {ready.message}" if ready is not None else "it has no status yet"
    if (status.observed_generation or 0) < parsed.metadata.generation:
        raise ReleaseRefusedError(
            f"{name} was edited and the operator has not looked at it yet: try again in a moment"
        )
    serving = [each for each in status.revisions if each.traffic > 0]
    if not serving:
        raise ReleaseRefusedError(f"{name} has no version that could be released ({because})")
    if len(serving) > 1 or (source.get("status") or {}).get("rollout"):
        raise ReleaseRefusedError(
            f"{name} is in a rollout, and what it will run is not decided: wait for its end, or "
            f"end it with `beamlit rollout promote --full`, `abort` or `undo`, then release"
        )
    version = serving[0].version
    origin = model.spec.origin
    holds_one = origin is not None and (origin.s3 is not None or origin.pvc is not None)
    found = model.status.origin
    if holds_one and found is not None and found.revision != version:
        raise ReleaseRefusedError(
            f"{found.uri} does not hold version {version} any more, which {name} serves, but "
            f"{found.revision}: nobody could have it. Put each version at a place of its own"
        )
    warnings: tuple[str, ...] = ()
    if ready is not None and ready.status != "True":
        warnings = (f"{name} is not ready ({because})",)
    return serving[0].name, version, warnings


def _new(order: Order, source: Json, deployments: Iterable[Json]) -> Json:
    """A destination that does not exist yet."""
    name = order.name or _named_like(source, order)
    taken = next((d for d in deployments if d["metadata"]["name"] == name), None)
    if taken is not None:
        spec = _spec(taken)
        raise ReleaseRefusedError(
            f"environment {order.destination} has no deployment of {order.model}, and the name "
            f"{name} is taken by model {spec.get('model')} in environment "
            f"{spec.get('environment')}: give another with --name"
        )
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": source["metadata"].get("namespace", "")},
        "spec": {"model": order.model, "environment": order.destination},
    }


def _named_like(source: Json, order: Order) -> str:
    """As the source is called: `iris-development` leads to `iris-production`."""
    name = str(source["metadata"]["name"])
    stem = name.removesuffix(f"-{order.source}")
    return f"{stem if stem != name else order.model}-{order.destination}"


def _deployment(deployments: Iterable[Json], model: str, environment: str) -> Json | None:
    """The one that serves the endpoint: of several the oldest."""
    found = [d for d in deployments if _of(d, model) and _spec(d).get("environment") == environment]
    return min(
        found,
        key=lambda d: (d["metadata"].get("creationTimestamp") or "~", d["metadata"]["name"]),
        default=None,
    )


def _of(deployment: Json, model: str) -> bool:
    return bool(_spec(deployment).get("model") == model) and not deployment["metadata"].get(
        "deletionTimestamp"
    )


def _spec(deployment: Json) -> Json:
    return dict(deployment.get("spec") or {})
