"""The files of a model as workloads see them: what was resolved, and how a pod fetches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.workloads.access import Access

MODELS = "/mnt/models"
"""Where a pod finds the model's files."""

MOUNTED = "/mnt/claim"
"""Where the container that checks the files of a claim or an image finds the whole of it."""


@dataclass(frozen=True)
class SecretVariable:
    """An environment variable whose value is a key of a Secret of the workspace."""

    name: str
    secret: str
    key: str
    optional: bool = False


def s3_credentials(secret: str) -> tuple[SecretVariable, ...]:
    """The variables for an S3-compatible store; the Secret has keys of the same names."""
    return (
        SecretVariable("AWS_ACCESS_KEY_ID", secret, "AWS_ACCESS_KEY_ID"),
        SecretVariable("AWS_SECRET_ACCESS_KEY", secret, "AWS_SECRET_ACCESS_KEY"),
        SecretVariable("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True),
    )


def hub_credentials(secret: str, key: str = "token") -> tuple[SecretVariable, ...]:
    """The variable for the Hugging Face Hub."""
    return (SecretVariable("HF_TOKEN", secret, key),)


def http_credentials(secret: str) -> tuple[SecretVariable, ...]:
    """The variables for web servers; the Secret has a token, or a name and a password."""
    return tuple(
        SecretVariable(f"BEAMLIT_HTTP_{key.upper()}", secret, key, optional=True)
        for key in ("token", "username", "password")
    )


def pull_credentials(secret: str) -> tuple[SecretVariable, ...]:
    """The variable for registries; the Secret is one to pull images with."""
    return (SecretVariable("BEAMLIT_DOCKER_CONFIG", secret, ".dockerconfigjson"),)


_VARIABLES = {
    "s3": {"AWS_ENDPOINT_URL": "endpoint", "AWS_REGION": "region"},
    "hf": {"HF_ENDPOINT": "endpoint"},
}
"""What a fetch is told by its environment, by the scheme of the uri: variable and attribute."""


@dataclass(frozen=True)
class ModelFiles:
    """An origin at one immutable revision, and how to reach it from a pod.

    Attributes:
        uri: `s3://bucket/prefix`, `hf://org/name`, `https://host/file` or `oci://host/name`; the
            scheme is the kind.
        revision: the immutable revision: a commit, or `sha256:...`.
        paths: relative names of the files.
        bytes: their size together.
        endpoint: the store's address, when it is not the public one.
        region: the store's region (S3).
        allow_patterns, ignore_patterns: which files are fetched (Hub).
        claim: the PersistentVolumeClaim of the workspace that holds the files.
        image: the image that holds them, for the kubelet to mount.
        folder: where in the claim or the image they are.
        pull_secret: the Secret with which the kubelet pulls that image.
        arguments: further ones of the fetch, which the kind of origin needs (web servers,
            registries).
        allow_pickle: whether files are fetched that can run code when loaded.
        unpack: whether archives are unpacked.
        secrets: where the credentials are.
        access: how else the fetching container proves who it is, and whom it trusts.
        facts: what the files say about the model; None when they were not read.
    """

    uri: str
    revision: str
    paths: tuple[str, ...] = ()
    bytes: int = 0
    endpoint: str | None = None
    region: str | None = None
    allow_patterns: tuple[str, ...] = ()
    ignore_patterns: tuple[str, ...] = ()
    claim: str = ""
    image: str = ""
    folder: str = ""
    pull_secret: str = ""
    arguments: tuple[str, ...] = ()
    allow_pickle: bool = False
    unpack: bool = False
    secrets: tuple[SecretVariable, ...] = ()
    access: Access = field(default_factory=Access)
    facts: ModelFacts | None = None

    @property
    def mounted(self) -> str:
        """What holds the files, where they are served as they lie there; empty where they are
        fetched."""
        if self.claim:
            return f"claim {self.claim}"
        return f"image {self.image}" if self.image else ""

    def fetch_arguments(self) -> list[str]:
        """The arguments of this project's command that bring exactly these files into a pod.

        The kubelet puts variables into arguments, `$(AWS_SECRET_ACCESS_KEY)` too: names that a
        Model's author chose would carry a Secret that they may not read to a store of theirs.
        """
        place = f"{MOUNTED}/{self.folder}".rstrip("/") if self.mounted else MODELS
        arguments = ["fetch", self.uri, place, "--revision", self.revision, *self.arguments]
        for pattern in self.allow_patterns:
            arguments += ["--allow-pattern", pattern]
        for pattern in self.ignore_patterns:
            arguments += ["--ignore-pattern", pattern]
        if self.allow_pickle:
            arguments.append("--allow-pickle")
        if self.unpack:
            arguments.append("--unpack")
        return [argument.replace("$", "$$") for argument in arguments]

    def plain_variables(self) -> Mapping[str, str]:
        """The variables that are no secret."""
        values = {
            name: getattr(self, attribute)
            for name, attribute in _VARIABLES.get(self.uri.partition("://")[0], {}).items()
        }
        return {name: value for name, value in values.items() if value}
