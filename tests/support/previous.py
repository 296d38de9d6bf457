"""The version before this one, to upgrade from: its chart, and its code for the chart's pods.

The embedded cluster runs every image of ours from the tree under test. Pods of the previous version
are therefore given its code by PYTHONPATH, and those of an upgrade are not.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.support.chart import Values
from tests.support.release import EMBEDDED
from tests.support.stack import ROOT

AGENT_ARGUMENTS: list[str] = EMBEDDED["gateway"]["agent"]["extraArgs"]

RELEASES = ROOT / "tests" / "fixtures" / "releases"
NAME = "0.1.0"
CHART = RELEASES / NAME / "chart.tgz"
CODE = RELEASES / NAME / "operator.tar.xz"


def unpacked(folder: Path) -> Path:
    """Unpacks the code; returns what goes into PYTHONPATH."""
    with tarfile.open(CODE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def definitions(folder: Path) -> Path:
    """Unpacks the chart's definitions; returns their folder."""
    with tarfile.open(CHART) as archive:
        archive.extractall(folder, filter="data")
    return folder / "beamlit-operator" / "files" / "crds"


KNOWN = ("--xds-listen", "--envoy-admin")
"""The agent's addresses that it can be told; it does not start with others."""


def running(code: Path) -> Values:
    """Values by which operator and agent run that code on the embedded cluster."""
    variables = [{"name": "HOME", "value": "/scratch"}, {"name": "PYTHONPATH", "value": str(code)}]
    arguments = [each for each in AGENT_ARGUMENTS if each.startswith(KNOWN)]
    agent = {"extraEnv": variables, "extraArgs": arguments}
    return {"operator": {"extraEnv": variables}, "gateway": {"agent": agent}}
