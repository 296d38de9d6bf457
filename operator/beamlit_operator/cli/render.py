"""``beamlit render -f FILES``: the objects the operator would apply, without a cluster.

The same pure function decides as in the operator. Which files a model has is asked of its origin,
with the credentials of the Secret that the manifests hold.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import yaml

from beamlit_operator.api import Model, ModelDeployment, labels
from beamlit_operator.cli import catalogues
from beamlit_operator.cli.errors import BAD_INPUT, FAILED, CommandError
from beamlit_operator.cli.manifests import (
    Json,
    Manifest,
    Workspace,
    read_manifests,
    read_workspaces,
)
from beamlit_operator.cli.runtimes import from_manifests
from beamlit_operator.controllers.credentials import SecretUse
from beamlit_operator.controllers.opening import Opening, access_of_pods, opening_of
from beamlit_operator.controllers.options import Options, default_image
from beamlit_operator.controllers.stores import keys_of, model_files, own_secret, reference
from beamlit_operator.origins import OriginError, OriginRef, resolve
from beamlit_operator.origins.inspection import inspect
from beamlit_operator.origins.pickles import needed_pickles, refusal
from beamlit_operator.origins.stores.claim import UID
from beamlit_operator.origins.stores.trust import AUTHORITIES
from beamlit_operator.policy import effective_policy
from beamlit_operator.workloads import (
    ModelFiles,
    Refusal,
    Settings,
    endpoint_service,
    workload,
)
from beamlit_operator.workloads.autoscaler import horizontal_pod_autoscaler, scales_by_resource


async def render_command(
    files: tuple[Path, ...], namespace: str | None, *, catalogue: Path | None = None
) -> int:
    """Prints the objects as YAML; deployments that get none are named on stderr, and fail."""
    manifests = read_manifests(files)
    workspaces = read_workspaces(manifests, namespace)
    if not any(each.deployments for each in workspaces.values()):
        raise CommandError("there is no ModelDeployment in the manifests", status=BAD_INPUT)
    known = (
        catalogues.from_manifests(manifests)
        if catalogue is None
        else catalogues.from_file(catalogue)
    )
    runtimes = from_manifests(manifests)
    for problem in runtimes.problems:
        print(f"beamlit: {problem}", file=sys.stderr)
    settings = Settings(
        image=default_image(),
        gateway_service=Options().gateway_service,
        catalogue=known,
        presets=runtimes.presets,
    )
    refusals = 0
    for where, workspace in sorted(workspaces.items()):
        refusals += await _render(workspace, where, manifests=manifests, settings=settings)
    return FAILED if refusals else 0


async def _render(
    workspace: Workspace, where: str, *, manifests: list[Manifest], settings: Settings
) -> int:
    """Prints the objects of one workspace; returns how many deployments get none."""
    refusals = 0
    for name in sorted(workspace.deployments):
        deployment = _placed(workspace.deployments[name], where)
        model = workspace.models.get(deployment.spec.model)
        if model is None:
            raise CommandError(
                f"ModelDeployment {name}: spec.model: Model {deployment.spec.model} is not in the"
                " manifests: add its file with -f",
                status=BAD_INPUT,
            )
        made = workload(
            deployment,
            model,
            policy=effective_policy(
                deployment,
                workspace.environments.get(deployment.spec.environment),
                policies=workspace.policies,
                catalogue=settings.catalogue,
            ),
            files=await _files(deployment, model, manifests=manifests),
            settings=settings,
        )
        if isinstance(made, Refusal):
            refusals += 1
            print(
                f"beamlit: ModelDeployment {name}: {made.reason}: {made.message}", file=sys.stderr
            )
            continue
        objects = [endpoint_service(deployment, settings), *made.objects]
        if scales_by_resource(deployment):
            objects.append(horizontal_pod_autoscaler(deployment, made.deployment))
        for item in objects:
            print(_written(item), end="")
    return refusals


def _written(item: Json) -> str:
    """The object as YAML; without its owner, which has no uid before it is applied."""
    metadata = {k: v for k, v in item["metadata"].items() if k != "ownerReferences"}
    # Through JSON, so that no part is shared: YAML would write the second as an alias.
    whole = json.loads(json.dumps({**item, "metadata": metadata}))
    return yaml.safe_dump(whole, sort_keys=False, explicit_start=True)


def _placed(deployment: ModelDeployment, namespace: str) -> ModelDeployment:
    """The deployment with a namespace, as ``kubectl apply`` would give it one."""
    if deployment.metadata.namespace:
        return deployment
    metadata = deployment.metadata.model_copy(update={"namespace": namespace})
    return deployment.model_copy(update={"metadata": metadata})


async def _files(
    deployment: ModelDeployment, model: Model, *, manifests: list[Manifest]
) -> ModelFiles:
    origin = model.spec.origin
    if origin is None:
        raise CommandError(
            f"Model {model.metadata.name}: spec.origin is not set: render needs one",
            status=BAD_INPUT,
        )
    try:
        ref = reference(origin, revision=deployment.spec.version)
        if ref is None:
            raise CommandError(
                f"Model {model.metadata.name}: spec.origin names no kind that this version knows",
                status=BAD_INPUT,
            )
        secret = own_secret(origin)
        opening = opening_of(
            origin,
            workspace=deployment.metadata.namespace,
            model=model.metadata.name,
            allow_node=True,
        )
        credentials = {
            **_credentials(manifests, ref, secret),
            **_authorities(manifests, opening),
            # A cluster's own, so the revision has another name there.
            **({UID: "not in a cluster"} if opening.claim else {}),
        }
        found = await resolve(ref, credentials)
    except OriginError as error:
        message = f"Model {model.metadata.name}: {error.message}"
        if origin.s3 is not None and (origin.s3.web_identity or origin.s3.node_credentials):
            message += "; render is in no cluster, and asks as nobody where a Model has an identity"
        raise CommandError(message) from error
    paths = tuple(file.path for file in found.files)
    if not model.spec.allow_pickle and (needed := needed_pickles(paths, unpack=model.spec.unpack)):
        raise CommandError(f"Model {model.metadata.name}: {refusal(needed)}", status=BAD_INPUT)
    inspection = await inspect(ref, credentials, found)
    return model_files(
        ref,
        revision=found.revision,
        paths=paths,
        size=found.bytes,
        model=model.spec,
        secret=secret,
        facts=inspection.facts,
        access=access_of_pods(opening, ref=ref, role=_role(manifests, opening), as_of=found.as_of),
    )


def _credentials(
    manifests: list[Manifest], ref: OriginRef, secret: SecretUse | None
) -> dict[str, str]:
    """What the Secret among the manifests says, as far as it does."""
    if secret is None:
        return {}
    known, keys = _secret(manifests, secret.name), keys_of(ref, secret)
    both = {**keys.needed, **keys.optional}
    return {name: known[key] for key, name in both.items() if key in known}


def _authorities(manifests: list[Manifest], opening: Opening) -> dict[str, str]:
    """The certificates in the ConfigMap that the origin names, if it is among the manifests."""
    if opening.authorities is None:
        return {}
    name, key = opening.authorities
    text = (_named(manifests, "ConfigMap", name).get("data") or {}).get(key)
    return {AUTHORITIES: str(text)} if text is not None else {}


def _role(manifests: list[Manifest], opening: Opening) -> str | None:
    """The role that the origin's ServiceAccount names, if it is among the manifests."""
    if opening.identity is None:
        return None
    account = _named(manifests, "ServiceAccount", opening.identity.service_account)
    return ((account.get("metadata") or {}).get("annotations") or {}).get(labels.ROLE_ARN)


def _named(manifests: list[Manifest], kind: str, name: str) -> Json:
    for manifest in manifests:
        document: Json = manifest.document
        if document.get("kind") == kind and (document.get("metadata") or {}).get("name") == name:
            return document
    return {}


def _secret(manifests: list[Manifest], name: str) -> dict[str, str]:
    """The contents of a Secret among the manifests; nothing if it is not there."""
    document = _named(manifests, "Secret", name)
    data = {
        key: base64.b64decode(value).decode() for key, value in (document.get("data") or {}).items()
    }
    return {**data, **(document.get("stringData") or {})}
