"""Which local program stands for an image name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml

BUILT_IN = Path(__file__).with_name("table.yaml")

_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+(?=/))?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>[\w][\w.-]{0,127}))?(@(?P<digest>[a-z0-9+.-]+:[0-9a-fA-F]{32,}))?"
)

_KEYS = {
    *("image", "kind", "requirements", "python", "fallback"),
    *("programs", "command", "args", "env"),
}


class UnknownImageError(LookupError):
    """No program is mapped to this image; the message says how to map one."""


class InvalidImageError(ValueError):
    """The text is not an image name at all (kubelet's ``InvalidImageName``)."""


class TableError(ValueError):
    """An image table that cannot be read; names file, entry and key."""


@dataclass(frozen=True, slots=True)
class Image:
    """One entry of the table."""

    pattern: str
    kind: Literal["host", "venv"]
    requirements: Path | None = None
    python: tuple[str, ...] = ()
    fallback: bool = False
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    programs: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Programs of the image that are a Python file here, run by the image's own Python."""


class ImageTable:
    """The entries of the user's files, then the built-in ones."""

    def __init__(self, *files: Path) -> None:
        """Raises :class:`TableError` for a file that cannot be used."""
        self._files = files
        self._images = [image for path in (*files, BUILT_IN) for image in _read(path)]

    def find(self, reference: str) -> Image:
        """The entry for an image as written in a pod.

        Raises:
            InvalidImageError: it is not an image name.
            UnknownImageError: no entry matches.
        """
        repository = normalized(reference)
        for image in self._images:
            if fnmatchcase(repository, image.pattern):
                return image
        raise UnknownImageError(
            f'no local program stands for image "{reference}": '
            "the embedded cluster runs processes, not containers. "
            "Map it in a YAML file and pass that with --images, for example: "
            f'images: [{{image: "{repository}", kind: host, command: [python]}}]'
        )


def normalized(reference: str) -> str:
    """The full repository name: ``seldonio/mlserver:1.7`` → ``docker.io/seldonio/mlserver``."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise InvalidImageError(
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name '
            f'"{reference}": invalid reference format'
        )
    name = found["name"]
    first, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    if "." in first or ":" in first or first == "localhost":
        return name
    return f"docker.io/{name}"


def _read(path: Path) -> list[Image]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise TableError(f"image table {path}: {error}") from error
    entries = document.get("images") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise TableError(f"image table {path}: expected a list under the key images")
    return [_image(path, number, entry) for number, entry in enumerate(entries)]


def _image(path: Path, number: int, entry: Any) -> Image:
    where = f"image table {path}, images[{number}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise TableError(f"{where}: needs a key image with a repository name")
    unknown = set(entry) - _KEYS
    if unknown:
        raise TableError(f"{where}: unknown key {min(unknown)}; known are {sorted(_KEYS)}")
    kind = entry.get("kind")
    if kind not in ("host", "venv"):
        raise TableError(f"{where}.kind: must be host or venv, not {kind!r}")
    if (kind == "venv") != ("requirements" in entry):
        raise TableError(f"{where}.requirements: belongs to kind venv, and is needed there")
    pattern = entry["image"]
    return Image(
        pattern if "*" in pattern else normalized(pattern),
        kind,
        path.parent / entry["requirements"] if kind == "venv" else None,
        _texts(where, "python", entry),
        bool(entry.get("fallback", False)),
        _texts(where, "command", entry),
        _texts(where, "args", entry),
        {str(k): str(v) for k, v in (entry.get("env") or {}).items()},
        {str(k): path.parent / str(v) for k, v in (entry.get("programs") or {}).items()},
    )


def _texts(where: str, key: str, entry: dict[str, Any]) -> tuple[str, ...]:
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise TableError(f"{where}.{key}: must be a list")
    return tuple(str(item) for item in value)
