"""What the kinds of origins in a Model's spec mean: one row each.

| spec.origin   | reference | Secret of its own         | workspace integration     |
|---------------|-----------|---------------------------|---------------------------|
| `huggingFace` | `HubRef`  | `tokenSecretRef`          | `huggingface`, by repo    |
| `s3`          | `S3Ref`   | `credentialsSecretRef`    | `s3`, by bucket           |
| `http`        | `WebRef`  | `credentialsSecretRef`    | -                         |
| `oci`         | `OciRef`  | `pullSecretRef`           | -                         |
| `pvc`         | `ClaimRef`| -                         | -                         |

How a store is asked and fetched from is told in `origins.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from beamlit_operator.api import Reason
from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.model import (
    ClaimOrigin,
    HttpOrigin,
    HuggingFaceOrigin,
    ModelSpec,
    OciOrigin,
    Origin,
    S3Origin,
)
from beamlit_operator.controllers.credentials import (
    HTTP_KEYS,
    HUB_KEY,
    HUB_KEYS,
    PULL_KEYS,
    S3_KEYS,
    Integrations,
    Keys,
    SecretUse,
)
from beamlit_operator.controllers.scope import Integration, choose
from beamlit_operator.origins import (
    ClaimRef,
    HubRef,
    OciRef,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
    parse_reference,
    parse_uri,
)
from beamlit_operator.origins.claimref import is_digest
from beamlit_operator.origins.ociref import DEFAULT_FOLDER
from beamlit_operator.origins.pickles import allowed_paths
from beamlit_operator.origins.ref import DEFAULT_HUB_ENDPOINT, is_time
from beamlit_operator.workloads import (
    ModelFiles,
    SecretVariable,
    http_credentials,
    hub_credentials,
    pull_credentials,
    s3_credentials,
)
from beamlit_operator.workloads.access import Access

_P = TypeVar("_P")
_R = TypeVar("_R", bound=OriginRef)


@dataclass(frozen=True, slots=True)
class StoreKind(Generic[_P, _R]):
    """One kind of origin.

    Attributes:
        part: the field of `spec.origin`.
        ref: the class of its references.
        reference: of the part, the revision that overrides its own, and the operator's Hub.
        name: the field of `spec.origin`, as people write it.
        secret: the Secret that the part names.
        opened_by: the field of the part that names it.
        integration: the kind of workspace integration that serves those that name none.
        subject: what an integration's `beamlit.com/allowed` is compared with.
        keys: what is read of the Secret.
        variables: how a pod gets it.
        files: how a pod reaches the files: the fields of `ModelFiles` that are the kind's own.
        sent_to: where an integration's credentials themselves are sent: of the part, and the
            operator's Hub; None where they only sign.
    """

    part: Callable[[Origin], _P | None]
    name: str
    ref: type[_R]
    reference: Callable[[_P, str | None, str | None], OriginRef]
    secret: Callable[[_P], SecretUse | None]
    opened_by: str
    integration: str | None
    subject: Callable[[_P], str]
    keys: Keys
    variables: Callable[[SecretUse], tuple[SecretVariable, ...]]
    files: Callable[[_R], dict[str, Any]]
    sent_to: Callable[[_P, str | None], str | None] = lambda _part, _hub: None


def _s3_secret(part: S3Origin) -> SecretUse | None:
    own = part.credentials_secret_ref
    return SecretUse(own.name) if own is not None else None


def _http_secret(part: HttpOrigin) -> SecretUse | None:
    own = part.credentials_secret_ref
    return SecretUse(own.name) if own is not None else None


def _http_arguments(ref: WebRef) -> tuple[str, ...]:
    first, *others = ref.files
    # In one argument each: a path may begin with a dash.
    arguments = [f"--sha256={first.sha256}", f"--path={first.path}"]
    arguments += [f"--also={file.sha256} {file.url} {file.path}" for file in others]
    return tuple(arguments)


def _claim_reference(part: ClaimOrigin, version: str | None, _hub: str | None) -> ClaimRef:
    """A version is another text for the files, or the digest that they must have."""
    pinned = is_digest(version)
    text = part.revision if pinned else version or part.revision
    return ClaimRef(part.claim_name, part.path or "", text or "", pinned=pinned)


def _hub_secret(part: HuggingFaceOrigin) -> SecretUse | None:
    own = part.token_secret_ref
    return SecretUse(own.name, own.key) if own is not None else None


def _s3_reference(part: S3Origin, revision: str | None, _hub: str | None) -> OriginRef:
    pinned = revision if revision is not None and part.versioned and is_time(revision) else None
    return parse_uri(
        part.uri,
        endpoint=part.endpoint,
        region=part.region,
        addressing_style=part.addressing_style,
        versioned=part.versioned,
        version_id=part.version_id,
        as_of=pinned,
    )


_S3 = StoreKind(
    part=lambda origin: origin.s3,
    name="s3",
    ref=S3Ref,
    reference=_s3_reference,
    secret=_s3_secret,
    opened_by="credentialsSecretRef",
    integration="s3",
    subject=lambda part: part.uri.removeprefix("s3://").partition("/")[0],
    keys=S3_KEYS,
    variables=lambda use: s3_credentials(use.name),
    files=lambda ref: {"uri": ref.uri, "endpoint": ref.endpoint, "region": ref.region},
)

_HUB = StoreKind(
    part=lambda origin: origin.hugging_face,
    name="huggingFace",
    ref=HubRef,
    reference=lambda part, revision, hub: HubRef(
        part.repo,
        revision or part.revision,
        endpoint=part.endpoint or hub,
        allow_patterns=part.allow_patterns,
        ignore_patterns=part.ignore_patterns,
    ),
    secret=_hub_secret,
    opened_by="tokenSecretRef",
    integration="huggingface",
    subject=lambda part: part.repo,
    sent_to=lambda part, hub: part.endpoint or hub or DEFAULT_HUB_ENDPOINT,
    keys=HUB_KEYS,
    variables=lambda use: hub_credentials(use.name, use.token_key),
    files=lambda ref: {
        # Without the branch: the revision says more.
        "uri": f"hf://{ref.repo}",
        "endpoint": ref.endpoint,
        "allow_patterns": ref.allow_patterns,
        "ignore_patterns": ref.ignore_patterns,
    },
)

_HTTP = StoreKind(
    part=lambda origin: origin.http,
    name="http",
    ref=WebRef,
    reference=lambda part, _revision, _hub: WebRef(
        tuple(WebFile(file.url, file.sha256, file.path or "") for file in part.files)
    ),
    secret=_http_secret,
    opened_by="credentialsSecretRef",
    integration=None,  # a token would go to whatever host a Model names
    subject=lambda part: part.files[0].url,
    keys=HTTP_KEYS,
    variables=lambda use: http_credentials(use.name),
    files=lambda ref: {"uri": ref.files[0].url, "arguments": _http_arguments(ref)},
)


def _oci_reference(part: OciOrigin, revision: str | None, _hub: str | None) -> OciRef:
    ref = parse_reference(part.reference, folder=part.path, mounted=part.mode == "Volume")
    return ref.at(revision) if revision else ref


def _oci_secret(part: OciOrigin) -> SecretUse | None:
    own = part.pull_secret_ref
    return SecretUse(own.name) if own is not None else None


def _oci_files(ref: OciRef) -> dict[str, Any]:
    # Without the tag: the revision says more.
    name = f"{ref.registry}/{ref.repository}"
    path = () if ref.folder == DEFAULT_FOLDER else (f"--path={ref.folder}",)
    if not ref.mounted:
        return {"uri": f"oci://{name}", "arguments": path}
    return {
        "uri": f"oci://{name}",
        "arguments": (*path, "--mounted"),
        "image": name,
        "folder": ref.folder,
    }


_OCI = StoreKind(
    part=lambda origin: origin.oci,
    name="oci",
    ref=OciRef,
    reference=_oci_reference,
    secret=_oci_secret,
    opened_by="pullSecretRef",
    integration=None,  # a Secret says itself which registries it is for
    subject=lambda part: part.reference,
    keys=PULL_KEYS,
    variables=lambda use: pull_credentials(use.name),
    files=_oci_files,
)

_PVC = StoreKind(
    part=lambda origin: origin.pvc,
    name="pvc",
    ref=ClaimRef,
    reference=_claim_reference,
    secret=lambda _part: None,
    opened_by="",
    integration=None,
    subject=lambda part: part.claim_name,
    keys=Keys({}),
    variables=lambda _use: (),
    files=lambda ref: {"uri": ref.uri, "claim": ref.claim, "folder": ref.path},
)

STORE_KINDS: tuple[StoreKind[Any, Any], ...] = (_HUB, _S3, _HTTP, _OCI, _PVC)


def store_kind(origin: Origin) -> tuple[StoreKind[Any, Any], Any] | None:
    """The row of an origin, and the part of the spec that it is about; None if it names no kind
    that is known here."""
    for kind in STORE_KINDS:
        part = kind.part(origin)
        if part is not None:
            return kind, part
    return None


def _row(ref: OriginRef) -> StoreKind[Any, Any]:
    return next(kind for kind in STORE_KINDS if isinstance(ref, kind.ref))


_FIELDS = {
    Reason.CONFIG_MAP_NOT_FOUND: "caConfigMapRef",
    Reason.SERVICE_ACCOUNT_NOT_USABLE: "webIdentity",
    Reason.CLAIM_NOT_FOUND: "claimName",
    Reason.CLAIM_NOT_USABLE: "claimName",
}


def field_of(ref: OriginRef, reason: Reason) -> str:
    """The field of a Model that names what is missing."""
    kind = _row(ref)
    return f"spec.origin.{kind.name}.{_FIELDS.get(reason, kind.opened_by)}"


def reference(
    origin: Origin, *, revision: str | None = None, hub: str | None = None
) -> OriginRef | None:
    """The reference that an origin's spec stands for; None if it names no kind that is known.

    Args:
        origin: the spec.
        revision: overrides the origin's own, where the store keeps several.
        hub: the Hub that the operator was told.

    Raises:
        OriginError: it cannot be right.
    """
    found = store_kind(origin)
    if found is None:
        return None
    kind, part = found
    ref: OriginRef = kind.reference(part, revision, hub)
    return ref


def own_secret(origin: Origin) -> SecretUse | None:
    """The Secret that an origin names."""
    found = store_kind(origin)
    if found is None:
        return None
    kind, part = found
    own: SecretUse | None = kind.secret(part)
    return own


@dataclass(frozen=True, slots=True)
class Opens:
    """The Secret that opens an origin, and why an integration does not."""

    secret: SecretUse | None
    withheld: str = ""


def secret_for(
    origin: Origin, *, workspace: str, integrations: Integrations, hub: str | None = None
) -> Opens:
    """The Secret that opens an origin: its own, else the integration's, else none (anonymous)."""
    found = store_kind(origin)
    if found is None:
        return Opens(None)
    kind, part = found
    own: SecretUse | None = kind.secret(part)
    if own is not None:
        # Naming an integration must not lead around what its owner says of it.
        named = integrations.named(workspace, own.name)
        return Opens(own) if named is None else _as_named(own, *named, found, hub)
    integration = integration_of(origin)
    if integration is None:
        return Opens(None)
    choice = integrations.find(
        workspace,
        integration,
        kind.subject(part),
        endpoint=kind.sent_to(part, hub),
        usual=hub or DEFAULT_HUB_ENDPOINT,
    )
    secret = SecretUse(choice.name, integration=True) if choice.name else None
    return Opens(secret, choice.withheld)


def _as_named(
    own: SecretUse,
    integration: str,
    known: Integration,
    found: tuple[StoreKind[Any, Any], Any],
    hub: str | None,
) -> Opens:
    """An integration that an origin names itself."""
    kind, part = found
    if kind.integration != integration:
        return Opens(
            None,
            f"Secret {own.name} is an integration of this workspace for {integration}, and used for"
            " nothing else: name a Secret of its own in the origin",
        )
    choice = choose(
        (known,),
        kind.subject(part),
        endpoint=kind.sent_to(part, hub),
        usual=hub or DEFAULT_HUB_ENDPOINT,
    )
    return Opens(own if choice.name else None, choice.withheld)


def integration_of(origin: Origin) -> str | None:
    """The kind of workspace integration that an origin without credentials or an identity of its
    own relies on."""
    found = store_kind(origin)
    if found is None or own_secret(origin) is not None:
        return None
    kind, part = found
    identified = getattr(part, "web_identity", None) or getattr(part, "node_credentials", False)
    return None if identified else kind.integration


def keys_of(ref: OriginRef, use: SecretUse) -> Keys:
    """What is to be read of the Secret that opens an origin."""
    keys = _row(ref).keys
    return keys if use.token_key == HUB_KEY else keys.renamed(HUB_KEY, use.token_key)


def variables_of(ref: OriginRef, use: SecretUse | None) -> tuple[SecretVariable, ...]:
    """How a pod gets the credentials."""
    return _row(ref).variables(use) if use is not None else ()


def model_files(
    ref: OriginRef,
    *,
    revision: str,
    paths: tuple[str, ...],
    size: int,
    model: ModelSpec,
    secret: SecretUse | None,
    facts: ModelFacts | None = None,
    access: Access | None = None,
) -> ModelFiles:
    """An origin as workloads want it: what was found, `size` bytes, and how a pod gets at it."""
    own = _row(ref).files(ref)
    mounted = own.get("image")
    if mounted:
        own |= {"image": f"{mounted}@{revision}", "pull_secret": secret.name if secret else ""}
    return ModelFiles(
        access=access or Access(),
        revision=revision,
        paths=allowed_paths(paths, allow_pickle=model.allow_pickle),
        bytes=size,
        allow_pickle=model.allow_pickle,
        unpack=model.unpack,
        # It is the kubelet that pulls such an image.
        secrets=() if mounted else variables_of(ref, secret),
        facts=facts,
        **own,
    )
