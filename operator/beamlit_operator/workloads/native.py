"""The engine `native`: a deployment's revision as a Deployment with a headless Service.

Pure: what the resources say, what was resolved and what policies allow go in; objects to apply come
out, or a refusal that says why there are none. What defines a revision is its pod without the
placement that policies give it and without the version of this project's fetcher: neither a
loosened policy nor an upgrade of the operator starts a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beamlit_operator.api import Model, ModelDeployment, Reason
from beamlit_operator.api import labels as marks
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.policy import Flavor
from beamlit_operator.api.runtime import AppProtocol, Runtime
from beamlit_operator.policy import Catalogue, EffectivePolicy, built_in, written
from beamlit_operator.policy.placement import place
from beamlit_operator.workloads import gpumemory, names, placing
from beamlit_operator.workloads.access import (
    access_annotations,
    access_problem,
    kept,
    with_access,
)
from beamlit_operator.workloads.autoscaler import scaling_problem
from beamlit_operator.workloads.cache import Cache, with_cache
from beamlit_operator.workloads.claimed import unseen_problem
from beamlit_operator.workloads.devices import DeviceNotAllowedError, flavors_to_place
from beamlit_operator.workloads.draft import Draft, draft, settled
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.loading import (
    progress_deadline,
    start_deadline,
    with_deadline,
)
from beamlit_operator.workloads.merge import merged
from beamlit_operator.workloads.outgoing import Outgoing, way_out_of, with_way_out
from beamlit_operator.workloads.pods import FETCHING, SERVING
from beamlit_operator.workloads.presets import Preset
from beamlit_operator.workloads.runtimes import (
    RuntimeProblem,
    merged_runtime,
    server,
)
from beamlit_operator.workloads.template import template_problem
from beamlit_operator.workloads.unsupported import unsupported

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the operator was told about the cluster."""

    image: str
    """This project's image, which fetches the files."""
    gateway_service: str
    """DNS name of the gateway's Service in the cluster."""
    engine: str = "native"
    presets: Mapping[str, Preset] | None = None
    """The runtime presets; the built-in ones by default."""
    catalogue: Catalogue = field(default_factory=built_in)
    outgoing: Outgoing = field(default_factory=Outgoing)
    """How the fetching of models gets out of the cluster."""


@dataclass(frozen=True)
class Refusal:
    """Nothing can be made; a reason and a sentence for the condition `Ready`."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Workload:
    """The objects of a deployment's current revision."""

    revision: names.RevisionName
    version: str
    """The origin's immutable revision."""
    runtime: str | None
    """The preset that serves; None for a server of the user's own."""
    port: int
    app_protocol: AppProtocol | None
    """What it speaks, where that is not `http`."""
    deployment: Json
    """The revision's Deployment, without `spec.replicas`."""
    service: Json
    """The revision's headless Service."""
    flavors: tuple[Flavor, ...] = ()
    """The flavors it asks for, without those that cannot hold the model."""

    @property
    def objects(self) -> tuple[Json, ...]:
        return (self.service, self.deployment)


def workload(
    deployment: ModelDeployment,
    model: Model,
    *,
    policy: EffectivePolicy,
    files: ModelFiles,
    settings: Settings,
    live: Mapping[str, Mapping[str, Any]] | None = None,
    cache: Cache | None = None,
) -> Workload | Refusal:
    """The current revision of a deployment.

    Args:
        deployment: the deployment.
        model: the Model it names.
        policy: what it is held to.
        files: its origin at the immutable revision that is to be served.
        settings: what the operator was told.
        live: Deployments in the cluster by name, so that what runs is left alone (`placing`).
        cache: the claim for files that are shared, in the deployment's workspace.
    """
    if (refusal := refused(deployment, policy=policy, settings=settings)) is not None:
        return refusal
    try:
        runtime = merged_runtime(model.spec.runtime, deployment.spec.runtime)
        if (unseen := unseen_problem(files, runtime, settings.presets)) is not None:
            return Refusal(Reason.INVALID_SPEC, unseen)
        gpus = _gpus(deployment, runtime)

        def drafted_by(facts: ModelFacts | None) -> Draft:
            gpu_bytes = gpumemory.surely_bytes(
                facts, deployment.spec.flavors, gpus=gpus, catalogue=settings.catalogue
            )
            serving = server(
                runtime,
                model=deployment.spec.model,
                environment=deployment.spec.environment,
                paths=files.paths,
                gpus=gpus,
                known=settings.presets,
                facts=facts,
                gpu_bytes=gpu_bytes,
            )
            return draft(
                deployment,
                serving,
                files,
                image=settings.image,
                catalogue=settings.catalogue,
                facts=facts,
            )

        drafted = settled(drafted_by, files.facts, live=live or {})
    except RuntimeProblem as problem:
        return Refusal(Reason.INVALID_SPEC, str(problem))
    serving, pod, revision = drafted.serving, drafted.pod, drafted.revision
    template = deployment.spec.pod_template or {}
    if (clash := access_problem(files.access, pod)) is not None:
        return Refusal(Reason.INVALID_SPEC, clash)
    try:
        requested = flavors_to_place(
            pod,
            requested=deployment.spec.flavors,
            allowed=policy.flavor.allowed,
            catalogue=settings.catalogue,
        )
    except DeviceNotAllowedError as problem:
        return Refusal(Reason.FLAVOR_NOT_ALLOWED, str(problem))
    found = (live or {}).get(revision)
    fitting = _fitting(drafted, policy, requested, settings.catalogue)
    if fitting.problem is not None and found is None:
        return Refusal(Reason.FLAVOR_TOO_SMALL, fitting.problem)
    placed_on = fitting.flavors or requested
    placed_for, pod = placing.settled_on(
        policy,
        pod=drafted.pod,
        live=found,
        container=SERVING,
        choices=(placed_on, requested) if placed_on != requested else (requested,),
        catalogue=settings.catalogue,
    )
    pod = _with_running_fetcher(pod, found, settings.image)
    pod = with_way_out(pod, FETCHING, outgoing=_way_out(found, settings))
    # Before what names a time or a role: equal files are one folder, whoever brings them.
    pod = with_cache(pod, cache=cache, image=settings.image, live=found)
    access = kept(files.access, found, FETCHING)
    pod = with_access(pod, FETCHING, access=access)
    start = start_deadline(serving.start_seconds, files.bytes)
    if serving.startup is None:
        running = found if found is not None and placing.has_replicas(found) else None
        pod = with_deadline(
            pod,
            SERVING,
            base=serving.start_seconds,
            seconds=start,
            live=running["spec"]["template"]["spec"] if running is not None else None,
        )
    labels = names.revision_labels(deployment, revision, version=files.revision)
    marked: Json = {"labels": labels}
    metadata_of_pods = merged(
        {"annotations": skipping} if (skipping := access_annotations(pod, access)) else {},
        template.get("metadata") or {},
    )
    if told := placing.template_annotations(placed_for, pod=pod, live=found):
        marked["annotations"] = told
    metadata = {
        "name": revision,
        "namespace": deployment.metadata.namespace,
        "labels": labels,
        "ownerReferences": [names.owner_reference(deployment)],
    }
    return Workload(
        revision=revision,
        version=files.revision,
        runtime=serving.type,
        port=serving.port,
        app_protocol=serving.app_protocol,
        flavors=placed_on if placed_on != requested else tuple(deployment.spec.flavors),
        deployment={
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                **metadata,
                "annotations": {
                    **placing.annotations_of(placed_for),
                    **({marks.APP_PROTOCOL: serving.app_protocol} if serving.app_protocol else {}),
                    **drafted.annotations(),
                },
            },
            "spec": {
                "selector": {"matchLabels": names.selector(revision)},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "revisionHistoryLimit": 1,
                "progressDeadlineSeconds": progress_deadline(start, files.bytes),
                "template": {
                    "metadata": merged(metadata_of_pods, marked),
                    "spec": pod,
                },
            },
        },
        service={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "ports": [
                    {
                        "name": "http",
                        "port": serving.port,
                        "targetPort": "http",
                        **({"appProtocol": serving.app_protocol} if serving.app_protocol else {}),
                    }
                ],
                "selector": names.routed(deployment, revision),
            },
        },
    )


def endpoint_service(deployment: ModelDeployment, settings: Settings) -> Json:
    """The Service under the deployment's own name: it leads to the gateway, which wakes it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": deployment.metadata.name,
            "namespace": deployment.metadata.namespace,
            "labels": names.common_labels(deployment),
            "ownerReferences": [names.owner_reference(deployment)],
        },
        "spec": {
            "type": "ExternalName",
            "externalName": settings.gateway_service,
            "ports": [{"name": "http", "port": 80}],
        },
    }


def refused(
    deployment: ModelDeployment, *, policy: EffectivePolicy, settings: Settings
) -> Refusal | None:
    """Why no pod may be made for the deployment, whatever its files are; None if one may."""
    if (problem := names.name_problem(deployment.metadata.name)) is not None:
        return Refusal(Reason.INVALID_SPEC, problem)
    if fields := unsupported(deployment, engine=settings.engine):
        return Refusal(Reason.UNSUPPORTED_FIELD, "; ".join(each.message for each in fields))
    for found in (template_problem(deployment.spec.pod_template), scaling_problem(deployment)):
        if found is not None:
            return Refusal(Reason.INVALID_SPEC, found)
    for each in policy.unresolved:
        missing_environment = each.kind == "Environment"
        return Refusal(
            Reason.ENVIRONMENT_NOT_FOUND if missing_environment else Reason.POLICY_NOT_FOUND,
            " ".join(problem.message for problem in policy.unresolved),
        )
    placement = place(policy, requested=deployment.spec.flavors, catalogue=settings.catalogue)
    if placement.forbidden:
        allowed = " ".join(written(policy.flavor.allowed or ()))
        return Refusal(
            Reason.FLAVOR_NOT_ALLOWED,
            f"spec.flavors asks for {' '.join(written(placement.forbidden))}, which policies do "
            f"not allow: allowed are {allowed}",
        )
    if placement.problem is not None:
        return Refusal(Reason.INVALID_SPEC, placement.problem)
    return None


def _fitting(
    drafted: Draft, policy: EffectivePolicy, requested: tuple[Flavor, ...], catalogue: Catalogue
) -> gpumemory.Fit:
    """Which of the flavors that policies leave hold the model."""
    container: Json = next(
        (each for each in drafted.pod["containers"] if each.get("name") == SERVING), {}
    )
    return gpumemory.fitting(
        drafted.files.facts,
        runtime=drafted.serving.type,
        container=container,
        annotations=drafted.deployment.metadata.annotations,
        requested=requested,
        allowed=policy.flavor.allowed,
        catalogue=catalogue,
    )


def _gpus(deployment: ModelDeployment, runtime: Runtime) -> int:
    """How many GPUs the user asks for: by resources, or one by asking for a gpu flavor.

    Not what policies come to, so that a policy's change does not change what runs.
    """
    for kind in ("limits", "requests"):
        amounts = (runtime.resources or {}).get(kind)
        for name, amount in amounts.items() if isinstance(amounts, Mapping) else ():
            if str(name).endswith("/gpu") and str(amount).isdigit():
                return int(amount)
    return int(any(each.type == "gpu" for each in deployment.spec.flavors))


def _way_out(live: Mapping[str, Any] | None, settings: Settings) -> Outgoing:
    if live is None or not placing.has_replicas(live):
        return settings.outgoing
    return way_out_of(live["spec"]["template"]["spec"], FETCHING)


def _with_running_fetcher(
    pod: Mapping[str, Any], live: Mapping[str, Any] | None, image: str
) -> Json:
    """While a revision has replicas, its pods keep the version of our image they were made with."""
    if live is None or not placing.has_replicas(live):
        return dict(pod)
    for each in live["spec"]["template"]["spec"].get("initContainers") or ():
        before = str(each.get("image", ""))
        if each.get("name") == FETCHING and _repository(before) == _repository(image):
            return {
                **pod,
                "initContainers": [
                    {**mine, "image": before}
                    if mine.get("name") == FETCHING and mine.get("image") == image
                    else mine
                    for mine in pod["initContainers"]
                ],
            }
    return dict(pod)


def _repository(image: str) -> str:
    """The image's name without tag and digest; a port of its registry is no tag."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name
