"""The plots in the documentation are those of this code."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from tests.plots.autoscaling import FOLDER, plot, trace
from tests.support.autoscaling_scenarios import SCENARIOS

DOCUMENT = FOLDER.parents[1] / "autoscaling.md"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_committed_trace_and_plot_are_what_the_code_does(name: str) -> None:
    rows = SCENARIOS[name].simulation.run()
    assert (FOLDER / f"{name}.csv").read_text() == trace(rows), "run: make plots"
    drawn = plot(SCENARIOS[name], rows)
    assert (FOLDER / f"{name}.svg").read_text() == drawn, "run: make plots"
    assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_document_shows_every_plot_and_no_other() -> None:
    shown = re.findall(r"images/autoscaling/([a-z-]+)\.svg", DOCUMENT.read_text())
    assert sorted(shown) == sorted(SCENARIOS)
    assert {path.stem for path in FOLDER.iterdir()} == set(SCENARIOS)
