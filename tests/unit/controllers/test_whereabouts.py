"""Where a pod's node is when nobody knows the node."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.fakekube import FakeKube
from tests.support.situations import metadata

from beamlit_operator.controllers.children import Nodes
from beamlit_operator.controllers.whereabouts import NODE_GRACE, Whereabouts
from beamlit_operator.kube import Change, Json, ObjectKey
from beamlit_operator.policy import built_in


def test_an_unknown_node_is_waited_for_a_moment_and_then_is_nowhere() -> None:
    nodes: dict[str, Mapping[str, str]] = {"known": {"a": "b"}}
    now = 0.0
    where = Whereabouts(nodes.get, clock=lambda: now)
    assert where.of(["known", "late"]) == {"known": {"a": "b"}}
    now = NODE_GRACE
    assert where.of(["known", "late"]) == {"known": {"a": "b"}, "late": {}}
    nodes["late"] = {"c": "d"}
    assert where.of(["late"]) == {"late": {"c": "d"}}
    # Gone again: the wait begins anew.
    del nodes["late"]
    assert where.of(["late"]) == {}


def node(name: str, region: str) -> Json:
    return {"metadata": metadata(name, labels={"topology.kubernetes.io/region": region})}


def test_every_node_that_moves_or_goes_is_told_of_even_if_its_kind_of_node_stays() -> None:
    heard: list[str] = []
    kinds: list[int] = []
    nodes = Nodes(
        FakeKube(),
        catalogue=built_in(),
        on_change=lambda: kinds.append(1),
        on_node=heard.append,
    )
    us, eu = node("one", "us-east-1"), node("one", "eu-west-1")
    for name, region in (("two", "us-east-1"), ("three", "eu-west-1")):
        nodes._changed(Change(ObjectKey("", name), None, node(name, region)))
    nodes._changed(Change(ObjectKey("", "one"), None, us))
    heard.clear()
    kinds.clear()
    nodes._changed(Change(ObjectKey("", "one"), us, eu))
    nodes._changed(Change(ObjectKey("", "one"), eu, None))
    assert heard == ["one", "one"]
    assert kinds == []


def test_of_a_node_its_labels_are_kept_and_not_what_makes_it_large() -> None:
    nodes = Nodes(FakeKube(), catalogue=built_in(), on_change=lambda: None)
    large = {**node("one", "us-east-1"), "status": {"images": [{"names": ["n" * 200]}] * 50}}
    nodes.reflector._put(ObjectKey("", "one"), large)
    assert nodes.reflector[ObjectKey("", "one")].keys() == {"metadata"}
    nodes.use(built_in())
    assert (nodes.labels_of("one") or {})["topology.kubernetes.io/region"] == "us-east-1"
