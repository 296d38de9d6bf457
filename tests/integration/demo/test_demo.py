"""``beamlit demo`` keeps what it promises, from an empty folder to zero replicas again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.samplestore import sample_store_address

WITHIN = 180.0
"""Seconds: the two minutes it promises, and a slow machine. The image is pulled before."""

PROMISED = (
    "us-east-1",
    "us-only",
    "australia",
    "overridden",
    "request in",
    "scaled up from zero",
    "model files fetched",
    "model server ready",
    "answered",
    "setosa",
    "virginica",
    "in us-east-1, as policy demands",
    "added by the gateway",
    "zero replicas, zero pods",
    "everything stopped, nothing is left running",
)


@pytest.fixture
def sample_store() -> Iterator[None]:
    """The right to use the sample store's address: there is one on a machine."""
    with sample_store_address():
        yield


@pytest.mark.xdist_group("whole-cluster")
@pytest.mark.usefixtures("sample_store")
def test_the_demo_shows_what_it_promises_and_ends_with_0() -> None:
    beamlit = (sys.executable, "-m", "beamlit_operator.cli.main")
    subprocess.run([*beamlit, "pull"], check=True, timeout=600)
    ran = subprocess.run(
        [*beamlit, "demo"], capture_output=True, text=True, check=False, timeout=WITHIN
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    missing = [text for text in PROMISED if text not in ran.stdout]
    assert not missing, ran.stdout
    # Readable where there is no terminal: no control sequences, no log lines.
    assert "\x1b" not in ran.stdout
    assert ran.stderr == ""
