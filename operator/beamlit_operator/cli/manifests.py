"""Reads manifests from files, as ``kubectl -f`` would, and keeps what is of the four kinds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.api.labels import API_VERSION
from beamlit_operator.cli.cluster import DEFAULT_WORKSPACE
from beamlit_operator.cli.errors import BAD_INPUT, CommandError

SUFFIXES = (".yaml", ".yml", ".json")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document and where it was read, for messages."""

    source: str
    document: Json


@dataclass(frozen=True, slots=True)
class Workspace:
    """The objects of one namespace, by name."""

    models: dict[str, Model]
    deployments: dict[str, ModelDeployment]
    environments: dict[str, Environment]
    policies: dict[str, Policy]

    @classmethod
    def empty(cls) -> Workspace:
        """One without objects."""
        return cls({}, {}, {}, {})

    def put(self, item: Model | ModelDeployment | Environment | Policy) -> None:
        """Adds an object, or replaces the one of its name."""
        match item:
            case Model():
                self.models[item.metadata.name] = item
            case ModelDeployment():
                self.deployments[item.metadata.name] = item
            case Environment():
                self.environments[item.metadata.name] = item
            case Policy():
                self.policies[item.metadata.name] = item


_KINDS: dict[str, type[Model] | type[ModelDeployment] | type[Environment] | type[Policy]] = {
    each.__name__: each for each in (Model, ModelDeployment, Environment, Policy)
}


def read_manifests(paths: Iterable[Path]) -> list[Manifest]:
    """Every document in the files, in order; ``-`` is standard input.

    Raises:
        CommandError: a file cannot be read or is not YAML; names it.
    """
    return [each for path in paths for each in _documents(path)]


def read_workspaces(
    manifests: Iterable[Manifest], namespace: str | None = None
) -> dict[str, Workspace]:
    """The objects of the four kinds, by the namespace they would be applied to.

    A document that names no namespace goes where ``kubectl`` would put it: to ``namespace``, else
    to ``default``. With ``namespace``, only that one is kept. Other kinds are passed over.

    Raises:
        CommandError: a document does not fit its schema; names file, object, field and mistake.
    """
    found: dict[str, Workspace] = {}
    for manifest in manifests:
        document = manifest.document
        model = _KINDS.get(str(document.get("kind")))
        if document.get("apiVersion") != API_VERSION or model is None:
            continue
        try:
            item = model.model_validate(document)
        except ValidationError as error:
            raise CommandError(_explained(manifest, error), status=BAD_INPUT) from error
        where = item.metadata.namespace or namespace or DEFAULT_WORKSPACE
        if namespace in (None, where):
            found.setdefault(where, Workspace.empty()).put(item)
    return found


def read_workspace(manifests: Iterable[Manifest], namespace: str) -> Workspace:
    """The objects of the four kinds in one namespace; see :func:`read_workspaces`."""
    return read_workspaces(manifests, namespace).get(namespace, Workspace.empty())


def _documents(path: Path) -> Iterator[Manifest]:
    if str(path) == "-":
        yield from _parsed("standard input", sys.stdin.read())
        return
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and f.is_file())
        if not files:
            raise CommandError(f"{path}: no {', '.join(SUFFIXES)} file in it", status=BAD_INPUT)
    else:
        files = [path]
    for file in files:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(f"{file}: cannot be read: {reason}", status=BAD_INPUT) from error
        yield from _parsed(str(file), text)


def _parsed(source: str, text: str) -> Iterator[Manifest]:
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise CommandError(f"{source}: not YAML: {error}", status=BAD_INPUT) from error
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise CommandError(
                f"{source}: a document must be an object with apiVersion and kind",
                status=BAD_INPUT,
            )
        if str(document.get("kind", "")).endswith("List") and "items" in document:
            yield from (Manifest(source, item) for item in document["items"] or ())
        else:
            yield Manifest(source, document)


def _explained(manifest: Manifest, error: ValidationError) -> str:
    document = manifest.document
    metadata = document.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    lines = [f"{manifest.source}: {document.get('kind')} {name} is not valid:"]
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        lines.append(f"  {field}: {problem['msg']}")
    return "\n".join(lines)
