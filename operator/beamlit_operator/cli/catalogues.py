"""Which catalogue a command decides by: the one that the operator has, if that can be known.

| given                                      | the catalogue                                     |
|--------------------------------------------|---------------------------------------------------|
| ``--catalogue FILE``                       | with the ConfigMap in the file                    |
| manifests with a ConfigMap of its name     | with that                                         |
| other manifests                            | the built-in one                                  |
| a cluster                                  | with its ConfigMap, if there is one               |
| a cluster that does not let it be read     | the built-in one, and a warning                   |

The operator's namespace and the ConfigMap's name are its own settings, in the same variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beamlit_operator.cli.errors import BAD_INPUT, CommandError
from beamlit_operator.cli.manifests import Manifest, read_manifests
from beamlit_operator.kube import CONFIG_MAPS, ApiError, KubeClient
from beamlit_operator.policy import Catalogue, built_in
from beamlit_operator.policy.extending import CONFIG_MAP, extended


def name() -> str:
    """The ConfigMap's name."""
    return os.environ.get("BEAMLIT_CATALOGUE") or CONFIG_MAP


def namespace() -> str:
    """The operator's namespace."""
    return os.environ.get("BEAMLIT_OPERATOR_NAMESPACE") or "beamlit-system"


def from_file(file: Path) -> Catalogue:
    """The catalogue with the ConfigMap in a file.

    Raises:
        CommandError: there is none in it, or more than one.
    """
    found = [each for each in read_manifests([file]) if each.document.get("kind") == "ConfigMap"]
    if len(found) != 1:
        raise CommandError(
            f"{file}: --catalogue wants a file with one ConfigMap, there are {len(found)} in it",
            status=BAD_INPUT,
        )
    return _extended(found[0].document, found[0].source)


def from_manifests(manifests: Iterable[Manifest]) -> Catalogue:
    """The catalogue with the ConfigMap of its name among the manifests, if there is one."""
    for each in manifests:
        metadata = each.document.get("metadata")
        if (
            each.document.get("kind") == "ConfigMap"
            and isinstance(metadata, dict)
            and metadata.get("name") == name()
            and metadata.get("namespace") in (None, namespace())
        ):
            return _extended(each.document, each.source)
    return built_in()


async def from_cluster(client: KubeClient) -> Catalogue:
    """The catalogue that the cluster's operator has."""
    try:
        found = await client.get(CONFIG_MAPS, name(), namespace())
    except ApiError as error:
        if error.not_found:
            return built_in()
        if error.status != 403:
            raise
        _warn(
            f"the catalogue (ConfigMap {namespace()}/{name()}) may not be read, so the built-in "
            f"one is used: {error.message}; --catalogue FILE names another"
        )
        return built_in()
    return _extended(found, f"ConfigMap {namespace()}/{name()}")


def _extended(config_map: dict[str, Any], source: str) -> Catalogue:
    data = config_map.get("data") or {}
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise CommandError(f"{source}: data must hold texts", status=BAD_INPUT)
    result = extended(data)
    for sentence in result.problems:
        _warn(f"{source}: left out: {sentence}")
    return result.catalogue


def _warn(text: str) -> None:
    print(f"beamlit: {text}", file=sys.stderr)
