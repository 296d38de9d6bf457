"""Finds the manifests that this version of the project brings: its CRDs, roles and samples.

In an installed package they stand beside the code; in a source tree, where they are kept.
"""

from __future__ import annotations

from pathlib import Path

import yaml

import beamlit_operator
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import Json


def _folder(name: str, *, source: str) -> Path:
    package = Path(beamlit_operator.__file__).parent
    packaged, source_tree = package / name, package.parents[1] / source
    for folder in (packaged, source_tree):
        if folder.is_dir():
            return folder
    raise CommandError(
        f"the {name} are neither in {packaged} nor in {source_tree}: install beamlit-operator again"
    )


def sample_folder(name: str) -> Path:
    """The folder of one sample.

    Raises:
        CommandError: the installation is not complete.
    """
    return _folder("samples", source="manifests/samples") / name


def read_roles(component: str) -> list[Json]:
    """The roles of ``operator`` or ``gateway``, with what binds them.

    Raises:
        CommandError: the installation is not complete.
    """
    file = _folder("rbac", source="manifests/rbac") / f"{component}.yaml"
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def read_crds() -> list[Json]:
    """The CustomResourceDefinitions, in the order of their names.

    Raises:
        CommandError: the installation is not complete.
    """
    folder = _folder("crds", source="crds")
    return [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]
