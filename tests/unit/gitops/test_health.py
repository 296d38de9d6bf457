"""What Argo CD and Flux make of the conditions that the operator writes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cel
import lupa
import pytest
import yaml

from beamlit_operator.controllers.verdict import State, Verdict, conditions_of

GITOPS = Path(__file__).parents[3] / "manifests" / "gitops"
KINDS = ("Environment", "Model", "ModelDeployment", "Policy")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


def health_of(kind: str) -> str:
    data = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text())["data"]
    script: str = data[f"resource.customizations.health.beamlit.com_{kind}"]
    return script


def argocd(kind: str, obj: Json) -> tuple[str, str]:
    """Status and message, as Argo CD gets them from the script for the kind."""
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(obj, recursive=True)
    result = lua.execute(health_of(kind))
    return result["status"], result["message"]


def expressions(kind: str) -> Json:
    documents = yaml.safe_load_all((GITOPS / "flux" / "workspaces.yaml").read_text())
    checks = [each for d in documents for each in d["spec"].get("healthCheckExprs", ())]
    (found,) = [each for each in checks if each["kind"] == kind]
    assert found["apiVersion"] == "beamlit.com/v1alpha1"
    return found


def flux(kind: str, obj: Json) -> str:
    """In the order in which Flux asks: InProgress, Failed, Current."""
    known = {name: obj.get(name, {}) for name in ("metadata", "spec", "status")}
    found = expressions(kind)
    for name, verdict in (("inProgress", "InProgress"), ("failed", "Failed")):
        if cel.evaluate(found[name], known):
            return verdict
    return "Current" if cel.evaluate(found["current"], known) else "InProgress"


def an_object(state: State, *, generation: int = 3, **status: Any) -> Json:
    verdict = Verdict(state, "Reason", f"It is {state.value}.")
    conditions = conditions_of(verdict, old=(), generation=3, now=NOW)
    return {
        "metadata": {"name": "a", "generation": generation},
        "spec": {},
        "status": {"observedGeneration": 3, "conditions": conditions, **status},
    }


PAUSED = {"rollout": {"phase": "Paused", "message": "Approve step 2."}}
CASES: list[tuple[Json, str, str, str]] = [
    (an_object(State.GOOD), "Healthy", "Current", "It is good."),
    (an_object(State.CHANGING), "Progressing", "InProgress", "It is changing."),
    (an_object(State.CHANGING, **PAUSED), "Suspended", "InProgress", "Approve step 2."),
    (an_object(State.HELD_UP), "Degraded", "Failed", "It is held up."),
    (an_object(State.ON_THE_WAY), "Progressing", "InProgress", "It is on the way."),
    (an_object(State.WAITING), "Progressing", "InProgress", "It is waiting."),
    (an_object(State.STALLED), "Degraded", "Failed", "It is stalled."),
    (
        an_object(State.STALLED, generation=4),
        "Progressing",
        "InProgress",
        "The operator has not looked at its last change yet.",
    ),
    (
        {"metadata": {"name": "a", "generation": 1}, "spec": {}},
        "Progressing",
        "InProgress",
        "The operator has not looked at it yet.",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("obj", "in_argocd", "in_flux", "told"), CASES)
def test_states_are_told_as_they_are(
    kind: str, obj: Json, in_argocd: str, in_flux: str, told: str
) -> None:
    assert argocd(kind, obj) == (in_argocd, told)
    assert flux(kind, obj) == in_flux


def test_every_state_of_the_operator_is_in_the_table() -> None:
    told = {each[3] for each in CASES}
    assert {f"It is {state.value}." for state in State} <= told


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_being_deleted_is_never_healthy(kind: str) -> None:
    obj = an_object(State.GOOD)
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert argocd(kind, obj) == ("Progressing", "It is being deleted.")


@pytest.mark.parametrize("path", sorted(GITOPS.glob("*/*.yaml")), ids=lambda path: path.name)
def test_examples_are_objects_with_names(path: Path) -> None:
    for each in yaml.safe_load_all(path.read_text()):
        assert {"apiVersion", "kind", "metadata"} <= each.keys()
        assert each["metadata"]["name"]
        assert each["metadata"].get("namespace") or each["kind"] == "Namespace"
