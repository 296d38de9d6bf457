"""What the manifest of a model in an OCI registry holds. Pure.

| a layer                                                  | is                                    |
|----------------------------------------------------------|---------------------------------------|
| `application/vnd.cncf.model.*.raw` (ModelPack), or one   | the file that `org.cncf.model.        |
| of Docker's with that annotation                         | filepath` names                       |
| `application/vnd.cncf.model.*.tar[+gzip|+zstd]`          | packed files                          |
| `application/vnd.kitops.modelkit.*.tar[+gzip]` (KitOps)  | packed files                          |
| `application/vnd.docker.ai.{dir,vllm.config}.tar`        | packed files                          |
| `application/vnd.ollama.image.model`,                    | model.gguf                            |
| `application/vnd.docker.ai.gguf.v3`                      |                                       |
| `application/vnd.ollama.image.projector`,                | mmproj.gguf                           |
| `application/vnd.docker.ai.mmproj`                       |                                       |
| any, with `org.opencontainers.image.title` (ORAS)        | the file of that name; with           |
|                                                          | `io.deis.oras.content.unpack` a       |
|                                                          | packed folder                         |
| a layer of a container image (KServe's modelcars)        | packed files, of which those in the   |
|                                                          | model's folder count                  |
| documents, code and data sets of ModelPack and KitOps;   | left out                              |
| templates, parameters and licences of Ollama and Docker  |                                       |
| anything else                                            | refused: a model that lacks a part    |
|                                                          | must not start                        |

Packed files are tar archives, as they are or compressed with gzip or Zstandard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename
from typing import Any

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import LARGEST_BYTES, is_archive

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_MANIFEST_BYTES = 4 * 2**20
"""What registries have to accept at least (OCI Distribution Spec 1.1), and here the most."""

_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
# The second is of ModelPack's first drafts.
_FILEPATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath")

_FOLDER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODELPACK = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\.([a-z.]+)\.v1\.(raw|tar(?:\+gzip|\+zstd)?)"
)
_KITOPS = re.compile(r"application/vnd\.kitops\.modelkit\.([a-z]+)\.v1\.tar(?:\+gzip|\+zstd)?")
_IMAGE = re.compile(
    r"application/vnd\.oci\.image\.layer\.v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.diff\.tar(?:\.gzip|\.zstd)?"
)
_DOCKER_PACKED = ("application/vnd.docker.ai.dir.tar", "application/vnd.docker.ai.vllm.config.tar")
_GGUF = {
    "application/vnd.ollama.image.model": "model.gguf",
    "application/vnd.ollama.image.projector": "mmproj.gguf",
    "application/vnd.docker.ai.gguf.v3": "model.gguf",
    "application/vnd.docker.ai.mmproj": "mmproj.gguf",
}
_ASIDE = re.compile(
    r"application/vnd\.(?:ollama\.image\.(?:template|params|licen[cs]e|system|messages)"
    r"|docker\.ai\.(?:license|chat\.template\.[a-z0-9]+))"
)
# ModelPack's kinds are weight, weight.config, doc, code and dataset; KitOps' the like.
_NEEDED = ("weight", "weight.config", "model", "modelpart")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that belongs to the model.

    Attributes:
        path: where it goes; for a packed one where it lies until it is unpacked.
        size: bytes.
        digest: ``sha256:<hex>``.
        packed: it is a tar archive.
        folder: the folder in a packed one whose content is the model; empty for all of it.
    """

    path: str
    size: int
    digest: str
    packed: bool = False
    folder: str = ""


def chosen(index: Mapping[str, Any], *, place: str) -> str:
    """The digest of the manifest to take of an index: the only one, or that for linux/amd64.

    A model is the same on all architectures; what is packed around it is not taken.

    Raises:
        OriginError: there is none.
    """
    found = [
        entry
        for entry in _entries(index, "manifests")
        if _DIGEST.fullmatch(str(entry.get("digest")))
        # Attestations of builds are manifests beside the images'.
        and _map(entry.get("platform")).get("os") != "unknown"
    ]
    if not found:
        raise _unusable(place, "its index names no manifest")
    for entry in found:
        platform = _map(entry.get("platform"))
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return str(entry["digest"])
    return str(found[0]["digest"])


def layers(manifest: Mapping[str, Any], *, folder: str, place: str) -> list[Layer]:
    """The layers that make up the model, in the order in which they are laid over each other.

    Args:
        manifest: an image manifest.
        folder: of images, the folder in which the model is.
        place: for messages.

    Raises:
        OriginError: it holds none, or something that is not known.
    """
    found = [
        layer
        for number, entry in enumerate(_entries(manifest, "layers"))
        if (layer := _layer(entry, number, folder=folder, place=place)) is not None
    ]
    if not found:
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"{place} holds no file of a model: name an artifact or image with a model in it",
        )
    return found


def parsed(content: bytes, *, place: str) -> Mapping[str, Any]:
    """A manifest or an index.

    Raises:
        OriginError: it is none.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _unusable(place, "the registry sends no manifest")
    return document


def _layer(entry: Mapping[str, Any], number: int, *, folder: str, place: str) -> Layer | None:
    media, digest, size = str(entry.get("mediaType")), entry.get("digest"), entry.get("size")
    notes = _map(entry.get("annotations"))
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _unusable(place, f"layer {number} has no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST_BYTES:
        raise _unusable(place, f"layer {number} has no size")
    path = next((notes[name] for name in _FILEPATHS if name in notes), None)
    packed = Layer(_packed_path(number, digest, media), size, digest, packed=True)
    if match := _MODELPACK.fullmatch(media):
        if match[1] not in _NEEDED:
            return None
        if match[2] != "raw":
            return packed
        return Layer(_named(path, number, place=place), size, digest)
    if match := _KITOPS.fullmatch(media):
        return packed if match[1] in _NEEDED else None
    if media in _DOCKER_PACKED:
        return packed
    if media.startswith("application/vnd.docker.ai.") and path is not None:
        return Layer(_named(path, number, place=place), size, digest)
    if media in _GGUF:
        return Layer(_GGUF[media], size, digest)
    if _ASIDE.fullmatch(media):
        return None
    if _TITLE in notes:
        # ORAS' Python library marks a folder by the media type alone.
        folder_alone = media in _FOLDER_TYPES and not is_archive(str(notes[_TITLE]))
        if notes.get(_UNPACK) == "true" or folder_alone:
            return packed
        return Layer(_named(notes[_TITLE], number, place=place), size, digest)
    if _IMAGE.fullmatch(media):
        return Layer(packed.path, size, digest, packed=True, folder=folder)
    raise _unusable(place, f"layer {number} has media type {media[:100]!r}, which is not known")


def _packed_path(number: int, digest: str, media: str) -> str:
    suffix = ".tar.gz" if "gzip" in media else ".tar.zst" if "zstd" in media else ".tar"
    return f"layer-{number:05}-{digest.removeprefix('sha256:')[:12]}{suffix}"


def _named(name: object, number: int, *, place: str) -> str:
    if not isinstance(name, str) or not basename(name):
        raise _unusable(place, f"layer {number} does not say which file it is")
    return name.removeprefix("./")


def _entries(document: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    entries = document.get(name)
    for entry in entries if isinstance(entries, Sequence) and not isinstance(entries, str) else ():
        yield _map(entry)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _unusable(place: str, what: str) -> OriginError:
    return OriginError(
        OriginReason.INVALID_REFERENCE, f"{place}: {what}: push it with a tool for models"
    )
