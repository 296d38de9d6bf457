"""docs/policies.md says what the code does: its table is the code's, its examples are run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import EffectivePolicy, effective, effective_policy, placement
from beamlit_operator.policy.because import listed

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (.+?)\n\n```yaml\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.M | re.S)


def policy(name: str, values: list[str]) -> Policy:
    kind = "flavor" if values[0].startswith(("cpu:", "gpu:")) else "location"
    entries = [dict(zip(("type", "name"), value.split(":"), strict=True)) for value in values]
    return Policy.model_validate(
        {"metadata": {"name": name}, "spec": {"type": kind, f"{kind}s": entries}}
    )


def decide(given: dict[str, Any]) -> EffectivePolicy:
    environment = None
    if (attached := given["environment"]) is not None:
        policies = [{"name": name, "mandatory": True} for name in attached.get("mandatory", ())]
        policies += [{"name": name} for name in attached.get("optional", ())]
        environment = Environment.model_validate(
            {"metadata": {"name": "production"}, "spec": {"policies": policies}}
        )
    deployment = ModelDeployment.model_validate(
        {"metadata": {"name": "iris"}, "spec": {"model": "iris", **given["deployment"]}}
    )
    known = {name: policy(name, values) for name, values in given["policies"].items()}
    return effective_policy(deployment, environment, policies=known)


def told(result: EffectivePolicy) -> list[str]:
    rows = dict.fromkeys(
        f"{row.name}: {row.effect}"
        for aspect in (result.location, result.flavor)
        for row in aspect.policies
    )
    return [
        f"location: {listed(result.location.allowed)}",
        f"flavor: {listed(result.flavor.allowed)}",
        *rows,
        *(f"unresolved: {each.kind} {each.name}" for each in result.unresolved),
        *(f"ignored: {each.action} {each.policy}" for each in result.ignored),
    ]


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("\n### ") >= 15


@pytest.mark.parametrize(
    ("given", "result"),
    [(given, result) for _, given, result in EXAMPLES],
    ids=[title for title, _, _ in EXAMPLES],
)
def test_the_example_gives_what_the_page_says(given: str, result: str) -> None:
    assert sorted(told(decide(yaml.safe_load(given)))) == sorted(result.splitlines())


@pytest.mark.parametrize("module", [effective, placement], ids=["effective", "placement"])
def test_the_tables_of_the_page_are_those_of_the_code(module: Any) -> None:
    table = [line for line in module.__doc__.splitlines() if line.startswith("|")]
    assert len(table) > 4
    assert "\n".join(table) in PAGE
