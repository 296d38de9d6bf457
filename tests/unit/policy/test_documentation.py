"""docs/policies.md says what the code does: its table is the code's, its examples are run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api import Environment, ModelDeployment, Policy
from beamlit_operator.policy import (
    EffectivePolicy,
    effective,
    effective_policy,
    nodes,
    placement,
)
from beamlit_operator.policy.because import listed

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("\n## Examples") :]
EXAMPLES = re.findall(r"^### (.+?)\n\n```yaml\n(.*?)```\n\n```text\n(.*?)```", SECTION, re.M | re.S)


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
    # A missing policy has no type, so it stands under both; it is told once here.
    missing = {each.name for each in result.unresolved}
    rows = [f"{row.name}: {row.effect}" for row in result.location.policies]
    rows += [f"{r.name}: {r.effect}" for r in result.flavor.policies if r.name not in missing]
    return [
        f"location: {listed(result.location.allowed)}",
        f"flavor: {listed(result.flavor.allowed)}",
        *rows,
        *(f"unresolved: {each.kind} {each.name}" for each in result.unresolved),
        *(f"ignored: {each.action} {each.policy}" for each in result.ignored),
    ]


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) == SECTION.count("\n### ") >= 20


def row_of(result: EffectivePolicy) -> str:
    """The row of the truth table that an example is about, by what it says of the location."""
    there = {row.group for row in result.location.policies if row.effect in IN_FORCE}
    in_force = {row.group for row in result.location.policies if row.contribution}

    def met(group: str, above: str) -> str:
        if group not in there or not there & set(above):
            return ""
        return "some" if group in in_force else "empty"

    sets = ["set" if group in there else "-" for group in "MOD"]
    return " ".join([*sets, met("O", "M"), met("D", "MO")])


IN_FORCE = {"enforced", "narrowed", "overridden"}


def test_every_row_of_the_truth_table_has_an_example() -> None:
    told_rows = {
        row_of(result)
        for _, given, _ in EXAMPLES
        if (result := decide(yaml.safe_load(given))).resolved
    }
    lines = (effective.__doc__ or "").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    rows = {" ".join([*row[:4], row[5]]) for row in cells if row and row[0] in ("-", "set")}
    assert len(rows) == 14
    assert rows <= told_rows


@pytest.mark.parametrize(
    ("given", "result"),
    [(given, result) for _, given, result in EXAMPLES],
    ids=[title for title, _, _ in EXAMPLES],
)
def test_the_example_gives_what_the_page_says(given: str, result: str) -> None:
    assert sorted(told(decide(yaml.safe_load(given)))) == sorted(result.splitlines())


@pytest.mark.parametrize(
    "module", [effective, nodes, placement], ids=["effective", "nodes", "placement"]
)
def test_the_tables_of_the_page_are_those_of_the_code(module: Any) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", module.__doc__, re.M)
    assert tables
    assert all(table in PAGE for table in tables)
