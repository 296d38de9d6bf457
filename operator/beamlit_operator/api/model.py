"""Model: an AI model for its whole life, and where its files come from."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from beamlit_operator.api.conditions import Condition
from beamlit_operator.api.facts import Count, ModelFacts
from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.api.runtime import Runtime
from beamlit_operator.api.schema import (
    DisplayName,
    ObjectName,
    advice,
    list_map,
    preserved_conditions,
    rule,
    rules,
)

STS_AUDIENCE = "sts.amazonaws.com"
"""Whom tokens of ServiceAccounts are for at AWS."""


class TokenSecretRef(Part):
    """A key of a Secret in the same namespace."""

    name: ObjectName
    """The Secret."""
    key: str = Field(default="token", min_length=1, max_length=253)
    """The key in it that holds the token."""


class SecretRef(Part):
    """A Secret in the same namespace."""

    name: ObjectName
    """The Secret."""


class CaConfigMapRef(Part):
    """A key of a ConfigMap in the same namespace with certificates of authorities, as PEM."""

    name: ObjectName
    """The ConfigMap."""
    key: str = Field(
        default="ca.crt",
        min_length=1,
        max_length=253,
        pattern=r"^[-._a-zA-Z0-9]+$",
        json_schema_extra=advice("write a key of a ConfigMap: letters, digits, '-', '_' and '.'"),
    )
    """The key in it that holds the certificates."""


class WebIdentity(Part):
    """A ServiceAccount of the same namespace that the store knows by its tokens (on EKS: IAM roles
    for service accounts)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.audience) || !self.audience.contains('kubernetes.default')",
                "a token for the cluster's own API is sent to no store: name the store's audience",
            ),
        )
    )

    service_account_name: ObjectName
    """The ServiceAccount."""
    role_arn: str | None = Field(
        default=None,
        min_length=20,
        max_length=2048,
        pattern=r"^arn:\S+$",
        json_schema_extra=advice("write the whole ARN: arn:aws:iam::123456789012:role/models"),
    )
    """The role that is taken on with its token; otherwise the ServiceAccount's annotation
    `eks.amazonaws.com/role-arn`."""
    audience: str = Field(default=STS_AUDIENCE, min_length=1, max_length=512)
    """Whom the token is for. For another audience than AWS' the ServiceAccount must have the same
    in its annotation `beamlit.com/sts-audience`."""
    sts_endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^https?://[^\s@]+$",
        json_schema_extra=advice("write an address with its scheme: https://sts.example.com:9000"),
    )
    """Where the token is exchanged, when that is not AWS: `https://host[:port]`. The ServiceAccount
    must have the same address in its annotation `beamlit.com/sts-endpoint`."""


class HuggingFaceOrigin(Part):
    """A repository on the Hugging Face Hub."""

    repo: str = Field(
        max_length=200,
        pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*(/[A-Za-z0-9][-A-Za-z0-9_.]*)?$",
        json_schema_extra=advice(
            "write ORG/NAME, as the Hub shows it, without its address; `revision` and `endpoint` "
            "are fields of their own"
        ),
    )
    """The repository, `org/name`."""
    revision: str = Field(default="main", min_length=1, max_length=255)
    """A branch, tag or commit; resolved to a commit."""
    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        json_schema_extra=advice(
            "write an address with its scheme, and without user name: https://hub.example.com"
        ),
    )
    """A Hub or mirror of its own, `https://host[:port][/path]`; otherwise the operator's. The token
    of a workspace integration is sent there only if its Secret has the key `endpoint` of that
    value."""
    ca_config_map_ref: CaConfigMapRef | None = None
    """Certificates of authorities that are trusted for this origin, besides the public ones."""
    token_secret_ref: TokenSecretRef | None = None
    """The token for a private or gated repository; otherwise the workspace integration's."""
    allow_patterns: tuple[str, ...] = Field(default=(), max_length=64)
    """Only files that match one of these patterns are fetched."""
    ignore_patterns: tuple[str, ...] = Field(default=(), max_length=64)
    """Files that match one of these patterns are not fetched."""


class S3Origin(Part):
    """A prefix in an S3-compatible store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(has(self.credentialsSecretRef) ? 1 : 0) + (has(self.webIdentity) ? 1 : 0) + "
                "(has(self.nodeCredentials) && self.nodeCredentials ? 1 : 0) <= 1",
                "set at most one of credentialsSecretRef, webIdentity and nodeCredentials",
            ),
            rule(
                "!has(self.versionId) || !has(self.versioned) || !self.versioned",
                "versionId names one version of one object: remove versioned or versionId",
            ),
        )
    )

    uri: str = Field(
        max_length=1100,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$",
        json_schema_extra=advice(
            "write s3://BUCKET/PREFIX, with 3 to 63 lower-case letters, digits, '-' and '.' for "
            "the bucket; the store's address goes into `endpoint`"
        ),
    )
    """`s3://bucket/prefix`."""
    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^https?://[^\s/]+/?$",
        json_schema_extra=advice(
            "write an address with its scheme, and without a path: https://minio.example.com:9000"
        ),
    )
    """The store's address, when it is not AWS: `https://host[:port]`."""
    region: str | None = Field(default=None, max_length=63)
    """The store's region."""
    versioned: bool = False
    """Whether the bucket keeps versions, by which a revision is pinned: what is overwritten or
    deleted later is still fetched for it. A ModelDeployment's `spec.version` may then be a time."""
    version_id: str | None = Field(default=None, min_length=1, max_length=1024)
    """The version of the one object that `uri` names, in a bucket that keeps versions."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket stands in requests: `path` in the path, `virtual` in the host name; `auto`
    is `path` with an `endpoint` and as AWS wants it without one."""
    ca_config_map_ref: CaConfigMapRef | None = None
    """Certificates of authorities that are trusted for this origin, besides the public ones."""
    credentials_secret_ref: SecretRef | None = None
    """A Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and optionally
    `AWS_SESSION_TOKEN`); otherwise the workspace integration's."""
    web_identity: WebIdentity | None = None
    """A ServiceAccount whose token the store exchanges for credentials, instead of a Secret."""
    node_credentials: bool = False
    """Whether the identity of the node or the pod counts, instead of a Secret: an instance profile,
    EKS Pod Identity, ECS. The operator must allow it."""


_SEGMENT = r"([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)"
"""A part of a path that leads nowhere else: neither empty nor `.` nor `..`."""


class HttpFile(Part):
    """A file on a web server."""

    url: str = Field(
        max_length=1024,
        pattern=r"^https?://[^\s/?#@]+(/[^\s#]*)?(\?[^\s#]*)?$",
        json_schema_extra=advice(
            "write https://HOST/PATH, without spaces and '#', and without user name and password "
            "(credentialsSecretRef has those)"
        ),
    )
    """Where it is: `https://host/path`, without user name and password."""
    # Longer than it may be, so that what is longer is told how it is written, and not its length.
    sha256: str = Field(
        max_length=128,
        pattern=r"^[A-Fa-f0-9]{64}$",
        json_schema_extra=advice(
            "write 64 hexadecimal digits, as sha256sum prints them, without 'sha256:'"
        ),
    )
    """The SHA-256 of its content, as `sha256sum` prints it. Other content is never served."""
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$",
        json_schema_extra=advice("write a relative path, without . and ..: weights/model.gguf"),
    )
    """Where it goes, relative, without `..`; by default the last part of the url's path."""


class HttpOrigin(Part):
    """Files on web servers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.files.all(f, !has(f.path) || "
                "self.files.exists_one(g, has(g.path) && g.path == f.path))",
                "two files have the same path: give each its own",
            )
        )
    )

    files: tuple[HttpFile, ...] = Field(min_length=1, max_length=256)
    """The files."""
    credentials_secret_ref: SecretRef | None = None
    """A Secret with `token` (sent as a bearer token), or with `username` and `password`. They are
    sent to the urls' own hosts only, not along a redirect to another."""
    ca_config_map_ref: CaConfigMapRef | None = None
    """Certificates of authorities that are trusted for this origin, besides the public ones."""


class OciOrigin(Part):
    """A model in a container registry: an artifact of ORAS, ModelPack, KitOps, Ollama or Docker, or
    an image with a folder of files."""

    reference: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9.:_\[\]-]+(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?"
        r"(@sha256:[0-9a-f]{64})?$",
        json_schema_extra=advice(
            "write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST, without oci:// "
            "and the repository in lower case"
        ),
    )
    """`registry/repository:tag` or `registry/repository@sha256:...`, as an image of a container;
    what names no registry is at Docker Hub."""
    pull_secret_ref: SecretRef | None = None
    """A Secret of type `kubernetes.io/dockerconfigjson`, for what not everybody may pull."""
    path: str = Field(
        default="models",
        max_length=255,
        pattern=rf"^/?({_SEGMENT}(/{_SEGMENT})*)?$",
        json_schema_extra=advice("write a folder's path, without . and ..: models/llama"),
    )
    """The folder of an image that holds the model. Artifacts are taken whole."""
    mode: Literal["Fetch", "Volume"] = "Fetch"
    """`Fetch`: into each pod, or the workspace's cache. `Volume`: the kubelet mounts the image, as
    clusters from Kubernetes 1.33 on can."""
    ca_config_map_ref: CaConfigMapRef | None = None
    """Certificates of authorities that are trusted for this origin, besides the public ones."""


class ClaimOrigin(Part):
    """A folder of a PersistentVolumeClaim in the same namespace."""

    claim_name: ObjectName
    """The PersistentVolumeClaim. Pods mount it, read-only; nothing is copied."""
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$",
        json_schema_extra=advice("write a relative path, without . and ..: llama/8b"),
    )
    """The folder in it, relative, without `..`; by default the whole claim."""
    revision: str | None = Field(default=None, min_length=1, max_length=255)
    """Any text. The operator cannot see the files: change it when they are others, and a new
    revision is rolled out."""


class Origin(Part):
    """Where the files of a model come from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.huggingFace), has(self.s3), has(self.http), has(self.pvc), "
                "has(self.oci)].filter(x, x).size() == 1",
                "set exactly one of huggingFace, s3, http, pvc and oci",
            )
        )
    )

    hugging_face: HuggingFaceOrigin | None = None
    """A repository on the Hugging Face Hub."""
    s3: S3Origin | None = None
    """A prefix in an S3-compatible store."""
    http: HttpOrigin | None = None
    """Files on web servers, each with its digest."""
    oci: OciOrigin | None = None
    """A model in a container registry."""
    pvc: ClaimOrigin | None = None
    """A folder of a PersistentVolumeClaim."""


class ModelSpec(Part):
    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                rule(
                    f"!(has(self.origin) && has(self.origin.pvc) && has(self.{name}) && "
                    f"self.{name})",
                    f"{name} has no meaning with origin.pvc, of which nothing is copied: remove it",
                )
                for name in ("unpack", "prefetch")
            ),
            *(
                rule(
                    "!(has(self.origin) && has(self.origin.oci) && has(self.origin.oci.mode) && "
                    f"self.origin.oci.mode == 'Volume' && has(self.{name}) && self.{name})",
                    f"{name} has no meaning with mode Volume of origin.oci, of which nothing is "
                    "copied: remove it",
                )
                for name in ("unpack", "prefetch")
            ),
        )
    )

    display_name: DisplayName | None = None
    """A name for people."""
    origin: Origin | None = None
    """Where the files come from. Without it, deployments must bring `modelSourceRef`."""
    allow_pickle: bool = False
    """Whether files may be fetched that can run code when loaded: pickle, joblib, PyTorch's
    own format. Without it they are left out where the origin has the weights in another form too,
    and refused where it has not."""
    unpack: bool = False
    """Whether archives at the origin (`*.tar`, `*.tar.gz`, `*.tgz`, `*.zip`) are unpacked where
    they lie, and removed."""
    prefetch: bool = False
    """Whether the files are brought into the workspace's cache before anybody asks for them."""
    runtime: Runtime | None = None
    """The runtime of deployments that name none."""


class ResolvedOrigin(Part):
    """What the origin held when it was last looked at."""

    uri: str = Field(max_length=1400)
    """The origin, in one line."""
    revision: str = Field(max_length=128)
    """The immutable revision: a commit, or a digest over what identifies the files."""
    files: int = Field(ge=0)
    """How many files it holds."""
    bytes: int = Field(ge=0, json_schema_extra={"format": "int64"})
    """How large they are together."""


class SuggestedRuntime(Part):
    """The runtime that suits the files."""

    type: str = Field(max_length=63)
    """The preset."""
    because: str = Field(max_length=512)
    """What in the files suggests it."""


class PrefetchStatus(Part):
    """How far the files of a Model with `prefetch` are on their way into the cache."""

    revision: str | None = Field(default=None, max_length=128)
    """The immutable revision that is fetched, or was."""
    phase: Literal["Pending", "Fetching", "Done", "Failed"]
    """`Pending`: waits for what the message says. `Failed`: it is tried again."""
    message: str = Field(default="", max_length=1024)
    """How far it is, or what is wrong."""
    fetched_bytes: int | None = Field(default=None, ge=0, json_schema_extra={"format": "int64"})
    """Bytes that are there, once that is known."""
    total_bytes: int | None = Field(default=None, ge=0, json_schema_extra={"format": "int64"})
    """How many there will be."""
    folder: str | None = Field(default=None, max_length=63)
    """The folder of the cache, which is kept while this stands."""
    claim_uid: str | None = Field(default=None, max_length=63)
    """Of the claim they are in: a claim that is made anew is filled anew."""


class DeploymentRow(Part):
    """One deployment of the model."""

    name: str = Field(max_length=253)
    """The ModelDeployment."""
    environment: str = Field(max_length=253)
    """Its Environment."""
    version: str | None = Field(default=None, max_length=255)
    """The version that serves; during a rollout, the one with most of the requests."""
    phase: str | None = Field(default=None, max_length=32)
    """Its phase."""
    url: str | None = Field(default=None, max_length=2048)
    """Its endpoint."""


class ModelStatus(Part):
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation the status was computed from."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=preserved_conditions())
    """`Ready`; `Reconciling` or `Stalled` while they hold."""
    phase: Literal["Created", "Deployed"] | None = None
    """`Deployed` when at least one deployment is enabled."""
    origin: ResolvedOrigin | None = None
    """What the origin held when it was last looked at."""
    suggested_runtime: SuggestedRuntime | None = None
    """The runtime that suits the files."""
    facts: ModelFacts | None = None
    """What the files say about the model."""
    gpu_memory_bytes: Count | None = None
    """How much memory of GPUs it needs at least: the weights, a small cache of keys and values, and
    what a server takes for itself."""
    prefetch: PrefetchStatus | None = None
    """How far `spec.prefetch` is."""
    deployments: tuple[DeploymentRow, ...] = Field(
        default=(), max_length=256, json_schema_extra=list_map("name")
    )
    """One row per deployment of the model."""


class Model(Part):
    """A Model of a workspace."""

    api_version: Literal["beamlit.com/v1alpha1"] = "beamlit.com/v1alpha1"
    kind: Literal["Model"] = "Model"
    metadata: ObjectMeta
    spec: ModelSpec = ModelSpec()
    status: ModelStatus = ModelStatus()
