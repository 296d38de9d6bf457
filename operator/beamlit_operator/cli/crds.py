"""Finds the CRDs that this version of the project brings."""

from __future__ import annotations

from pathlib import Path

import yaml

import beamlit_operator
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import Json


def crd_folder() -> Path:
    """Where the CRDs are: in the installed package, or in the source tree it is installed from.

    Raises:
        CommandError: in neither.
    """
    package = Path(beamlit_operator.__file__).parent
    packaged, source_tree = package / "crds", package.parents[1] / "crds"
    for folder in (packaged, source_tree):
        if any(folder.glob("beamlit.com_*.yaml")):
            return folder
    raise CommandError(
        f"the CRDs are neither in {packaged} nor in {source_tree}: install beamlit-operator again"
    )


def read_crds() -> list[Json]:
    """The CustomResourceDefinitions, in the order of their names."""
    return [yaml.safe_load(file.read_text()) for file in sorted(crd_folder().glob("*.yaml"))]
