"""Which objects a change affects, and that late or stale news does no harm."""

from __future__ import annotations

from typing import Any

from tests.support.situations import metadata

from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind
from beamlit_operator.kube import Json, ObjectKey


class Known:
    """Indexes, and the keys they put on the queue."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.version = 0
        self.indexes = Indexes(self._add)

    def _add(self, key: Key, _: float) -> None:
        self.keys.append(f"{key.kind}/{key.name}")

    def body(self, kind: Kind, name: str, spec: Json, **more: Any) -> Json:
        self.version += 1
        meta = metadata(name, resourceVersion=str(self.version))
        return {
            "apiVersion": "beamlit.com/v1alpha1",
            "kind": str(kind),
            "metadata": meta,
            "spec": spec,
            **more,
        }

    def put(self, kind: Kind, name: str, spec: Json, **more: Any) -> Json:
        body = self.body(kind, name, spec, **more)
        self.indexes.put(kind, body)
        return body

    def heard(self) -> set[str]:
        found, self.keys = set(self.keys), []
        return found


def world() -> Known:
    known = Known()
    known.put(Kind.POLICY, "us", {"type": "location", "locations": []})
    known.put(Kind.ENVIRONMENT, "production", {"policies": [{"name": "us"}]})
    known.put(Kind.ENVIRONMENT, "other", {})
    known.put(Kind.MODEL, "iris", {"origin": {"s3": {"uri": "s3://models/iris"}}})
    known.put(Kind.MODEL_DEPLOYMENT, "a", {"model": "iris"})
    known.put(Kind.MODEL_DEPLOYMENT, "b", {"model": "iris", "environment": "other"})
    known.put(
        Kind.MODEL_DEPLOYMENT,
        "c",
        {"model": "else", "policies": [{"name": "us"}], "environment": "other"},
    )
    known.heard()
    return known


def test_a_policy_affects_the_environments_that_attach_it_and_the_deployments_under_it() -> None:
    known = world()
    known.put(
        Kind.POLICY, "us", {"type": "location", "locations": [{"type": "country", "name": "us"}]}
    )
    assert known.heard() == {
        "Policy/us",
        "Environment/production",
        "ModelDeployment/a",
        "ModelDeployment/c",
    }


def test_an_environment_affects_the_deployments_in_it() -> None:
    known = world()
    known.put(Kind.ENVIRONMENT, "other", {"policies": [{"name": "us"}]})
    assert known.heard() == {"Environment/other", "ModelDeployment/b", "ModelDeployment/c"}


def test_a_status_of_an_environment_affects_no_deployment() -> None:
    known = world()
    known.put(
        Kind.ENVIRONMENT, "production", {"policies": [{"name": "us"}]}, status={"deployments": 4}
    )
    assert known.heard() == {"Environment/production"}


def test_a_model_affects_its_deployments() -> None:
    known = world()
    known.put(Kind.MODEL, "iris", {"origin": {"s3": {"uri": "s3://models/other"}}})
    assert known.heard() == {"Model/iris", "ModelDeployment/a", "ModelDeployment/b"}


def test_a_missing_policy_that_appears_affects_who_waits_for_it() -> None:
    known = world()
    known.put(Kind.ENVIRONMENT, "other", {"policies": [{"name": "new"}]})
    known.heard()
    known.put(Kind.POLICY, "new", {"type": "location"})
    assert {"Environment/other", "ModelDeployment/b"} <= known.heard()


def test_a_deployment_that_comes_or_goes_affects_model_environment_and_rivals() -> None:
    known = world()
    known.put(Kind.MODEL_DEPLOYMENT, "second", {"model": "iris"})
    everyone = {
        "ModelDeployment/second",
        "ModelDeployment/a",
        "Model/iris",
        "Environment/production",
    }
    assert known.heard() == everyone
    known.indexes.remove(Kind.MODEL_DEPLOYMENT, ObjectKey("team", "second"))
    assert known.heard() == everyone


def test_the_answer_to_our_own_write_is_no_news_for_the_object_itself() -> None:
    known = world()
    body = known.body(Kind.MODEL_DEPLOYMENT, "a", {"model": "iris"}, status={"phase": "Idle"})
    known.indexes.put(Kind.MODEL_DEPLOYMENT, body, own=True)
    assert known.heard() == {"Model/iris"}
    known.indexes.put(Kind.MODEL_DEPLOYMENT, body)
    assert known.heard() == set()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    known = world()
    older = known.body(Kind.MODEL, "iris", {"displayName": "older"})
    known.put(Kind.MODEL, "iris", {"displayName": "newer"})
    known.heard()
    known.indexes.put(Kind.MODEL, older)
    held = known.indexes.models[ObjectKey("team", "iris")]
    assert held.raw["spec"]["displayName"] == "newer"
    assert known.heard() == set()


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    known = world()
    late = known.body(Kind.MODEL, "iris", {})
    known.indexes.remove(Kind.MODEL, ObjectKey("team", "iris"), uid="uid-iris")
    known.indexes.put(Kind.MODEL, late, own=True)
    assert ObjectKey("team", "iris") not in known.indexes.models


def audit(
    known: Known,
    kind: Kind,
    items: list[Json],
    *,
    namespace: str | None,
    known_before: frozenset[str],
) -> None:
    """A fresh listing, whole."""
    present = {known.indexes.listed(kind, raw) for raw in items}
    known.indexes.retain(kind, present, namespace=namespace, known_before=known_before)


def test_an_audit_finds_what_was_deleted_unnoticed() -> None:
    known = world()
    left = known.body(Kind.MODEL_DEPLOYMENT, "a", {"model": "iris"})
    before = known.indexes.uids(Kind.MODEL_DEPLOYMENT)
    audit(known, Kind.MODEL_DEPLOYMENT, [left], namespace=None, known_before=before)
    assert set(known.indexes.deployments) == {ObjectKey("team", "a")}
    audit(known, Kind.MODEL_DEPLOYMENT, [], namespace="elsewhere", known_before=before)
    assert set(known.indexes.deployments) == {ObjectKey("team", "a")}


def test_an_audit_spares_what_was_created_while_its_listing_was_under_way() -> None:
    known = world()
    before = known.indexes.uids(Kind.MODEL)
    listed = [known.body(Kind.MODEL, "iris", {})]
    known.put(Kind.MODEL, "newborn", {})
    audit(known, Kind.MODEL, listed, namespace=None, known_before=before)
    assert ObjectKey("team", "newborn") in known.indexes.models
    known.put(Kind.MODEL, "newborn", {"displayName": "still heard of"})
    assert "Model/newborn" in known.heard()


def test_an_object_that_cannot_be_read_is_held_with_its_problem() -> None:
    known = world()
    known.put(Kind.MODEL_DEPLOYMENT, "broken", {"model": 7})
    held = known.indexes.deployments[ObjectKey("team", "broken")]
    assert held.parsed is None
    assert "spec.model" in held.problem
    assert known.heard() == {"ModelDeployment/broken"}


def test_an_integration_affects_the_models_without_credentials_of_their_own() -> None:
    known = world()
    own = {"s3": {"uri": "s3://models/x", "credentialsSecretRef": {"name": "mine"}}}
    known.put(Kind.MODEL, "own", {"origin": own})
    known.heard()
    known.indexes.integration_changed("team", "s3")
    assert known.heard() == {"Model/iris"}


def test_a_change_that_only_the_answer_to_our_write_shows_is_not_lost() -> None:
    known = world()
    changed = known.body(Kind.MODEL_DEPLOYMENT, "a", {"model": "iris", "enabled": False})
    changed["metadata"]["generation"] = 2
    known.indexes.put(Kind.MODEL_DEPLOYMENT, changed, own=True)
    assert "ModelDeployment/a" in known.heard()
