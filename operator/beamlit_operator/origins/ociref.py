"""References to models in OCI registries. Pure.

Written as containers' images are: ``registry/repository:tag`` or ``registry/repository@digest``;
what names no registry is at Docker Hub. The grammar is that of the Distribution project's
``reference`` package.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from beamlit_operator.origins.errors import invalid

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
DEFAULT_FOLDER = "models"
"""Where models are in images, by KServe's convention for modelcars."""

MAX_REPOSITORY = 255

_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-.]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class OciRef:
    """An artifact or an image in a registry.

    Attributes:
        registry: host, with its port if it has one.
        repository: the name there.
        tag: what may move; counts only without a digest.
        digest: ``sha256:<hex>`` of the manifest, or empty.
        folder: the folder of an image in which the model is; artifacts have none.
        mounted: a kubelet mounts the image, and nothing is fetched.
    """

    registry: str
    repository: str
    tag: str = DEFAULT_TAG
    digest: str = ""
    folder: str = DEFAULT_FOLDER
    mounted: bool = False

    def __post_init__(self) -> None:
        written = f"{self.registry}/{self.repository}"
        if not _REGISTRY.fullmatch(self.registry):
            raise invalid(f"{self.registry!r} is not the host of a registry: use REGISTRY/NAME:TAG")
        if not _REPOSITORY.fullmatch(self.repository) or len(written) > MAX_REPOSITORY:
            raise invalid(
                f"repository {self.repository!r} is not possible: use lower case letters, digits "
                "and . _ - between them, as in REGISTRY/NAME:TAG"
            )
        if not _TAG.fullmatch(self.tag):
            raise invalid(f"tag {self.tag!r} of {written} is not possible: use letters and digits")
        if self.digest and not _DIGEST.fullmatch(self.digest):
            raise invalid(f"digest {self.digest!r} of {written} is not one: use sha256:<64 digits>")
        if any(part in ("", ".", "..") for part in self.folder.split("/")) and self.folder:
            raise invalid(f"path {self.folder!r} is not a folder of an image: name it without ..")

    @property
    def uri(self) -> str:
        """The shortest that :func:`parse_reference` reads back."""
        return f"oci://{self.reference}"

    @property
    def reference(self) -> str:
        """As a kubelet wants it."""
        name = f"{self.registry}/{self.repository}"
        return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag}"

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        return self.uri

    @property
    def keeps_revisions(self) -> bool:
        """A registry finds a manifest by its digest as long as it is there."""
        return True

    def at(self, revision: str) -> OciRef:
        """The reference for one revision: a digest, or a tag."""
        if _DIGEST.fullmatch(revision):
            return replace(self, digest=revision)
        return replace(self, tag=revision, digest="")

    def identity(self, revision: str) -> str:
        """What a directory holds that has all files of the revision."""
        return f"oci {revision} {self.folder}"

    @property
    def base_url(self) -> str:
        """Where the repository is in the Distribution API (OCI Distribution Spec 1.1). Without TLS
        only on this machine, as container engines have it."""
        host = "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry
        return f"{'http' if _is_here(self.registry) else 'https'}://{host}/v2/{self.repository}"


def parse_reference(text: str, *, folder: str = DEFAULT_FOLDER, mounted: bool = False) -> OciRef:
    """The reference that ``text``, with or without ``oci://``, stands for.

    Raises:
        OriginError: ``InvalidReference``.
    """
    text = text.removeprefix("oci://")
    name, _, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    # As container engines tell a registry from a part of a name.
    if slash and (first == "localhost" or any(sign in first for sign in ".:")):
        registry, name = first, rest
    else:
        registry = DOCKER_HUB
    repository, _, tag = name.partition(":")
    if registry in (DOCKER_HUB, "index.docker.io"):
        registry = DOCKER_HUB
        repository = repository if "/" in repository else f"library/{repository}"
    return OciRef(registry, repository, tag or DEFAULT_TAG, digest, folder.strip("/"), mounted)


def _is_here(registry: str) -> bool:
    host = registry.rpartition(":")[0] if registry[-1].isdigit() and ":" in registry else registry
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
