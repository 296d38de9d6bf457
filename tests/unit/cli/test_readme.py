"""The README's first screen: what it shows is right, and the commands that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.cli.app import app

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app)


def test_the_manifest_that_it_begins_with_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[:1]
    first, second = yaml.safe_load_all(block)
    model, deployment = Model.model_validate(first), ModelDeployment.model_validate(second)
    assert model.spec.origin is not None
    assert deployment.spec.model == model.metadata.name
    assert first["spec"].keys() <= model.spec.to_wire().keys()
    assert second["spec"].keys() <= deployment.spec.to_wire().keys()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`beamlit ([a-z-]+)", README))))
def test_a_command_that_it_names_is_there(name: str) -> None:
    assert name in getattr(COMMANDS, "commands", {})


@pytest.mark.parametrize("name", sorted(set(re.findall(r"make ([a-z-]+)`", README))))
def test_a_target_that_it_names_is_there(name: str) -> None:
    assert re.search(rf"^{name}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("place", sorted(set(re.findall(r"\]\(([^)#:]+)[^)]*\)", README))))
def test_a_page_that_it_links_to_is_there(place: str) -> None:
    assert (ROOT / place).exists()
