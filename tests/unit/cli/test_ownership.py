"""Whose change of a field is made, and whose is refused: the table in `cli/ownership`."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.cli.differences import differences
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.ownership import declared_elsewhere, require_free

RUNTIME = {"f:spec": {"f:runtime": {".": {}, "f:image": {}, "f:envs": {}}}}


def live(manager: str, operation: str, fields: dict[str, Any] = RUNTIME) -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields}
    return {"metadata": {"name": "iris-production", "managedFields": [entry]}}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    return list(differences({"spec": before}, {"spec": after}))


IMAGE = changes({"runtime": {"image": "a"}}, {"runtime": {"image": "b"}})


@pytest.mark.parametrize(
    ("manager", "operation", "refused"),
    [
        ("kubectl-client-side-apply", "Update", False),
        ("kubectl", "Apply", False),
        ("kubectl-edit", "Update", False),
        ("beamlit-cli", "Update", False),
        ("before-first-apply", "Update", False),
        ("k9s", "Update", False),
        ("argocd-controller", "Update", True),
        ("argocd-controller", "Apply", True),
        ("kustomize-controller", "Apply", True),
        ("helm", "Update", True),
        ("helm-controller", "Update", True),
        ("HashiCorp", "Update", True),
        ("somebodys-pipeline", "Apply", True),
    ],
)
def test_what_a_tool_declares_is_refused(manager: str, operation: str, refused: bool) -> None:
    found = list(declared_elsewhere(live(manager, operation), IMAGE))
    assert [each for each, _ in found] == ([manager] if refused else [])


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"runtime": {"image": "a"}}, {"runtime": {"image": "b"}}, True),
        ({"runtime": {"image": "a"}}, {"runtime": {}}, True),
        ({"runtime": {"image": "a"}}, {}, True),
        ({"runtime": {"args": ["a"]}}, {"runtime": {"args": ["b"]}}, False),
        ({}, {"version": "v1"}, False),
        ({"version": "v1"}, {"version": "v2"}, False),
        (
            {"runtime": {"envs": [{"name": "A", "value": "1"}]}},
            {"runtime": {"envs": [{"name": "A", "value": "2"}]}},
            True,
        ),
    ],
)
def test_only_its_own_fields_are_a_tools(before: Any, after: Any, refused: bool) -> None:
    found = list(declared_elsewhere(live("argocd-controller", "Apply"), changes(before, after)))
    assert bool(found) is refused


def test_what_a_tool_owns_as_a_whole_holds_what_is_below() -> None:
    whole = live("argocd-controller", "Apply", {"f:spec": {"f:runtime": {}}})
    assert list(declared_elsewhere(whole, IMAGE))


def test_the_status_is_no_declaration() -> None:
    item = live("argocd-controller", "Apply")
    item["metadata"]["managedFields"][0]["subresource"] = "status"
    assert not list(declared_elsewhere(item, IMAGE))


def test_the_refusal_names_fields_and_tool_and_says_what_to_do() -> None:
    with pytest.raises(CommandError) as refusal:
        require_free(live("argocd-controller", "Apply"), IMAGE, instead="Edit it in Git")
    assert refusal.value.message == (
        "ModelDeployment iris-production: spec.runtime.image is declared by argocd-controller, "
        "which would put it back. Nothing was changed. Edit it in Git, or take the fields over "
        "with --force-conflicts."
    )
    require_free(live("kubectl", "Apply"), IMAGE, instead="-")
