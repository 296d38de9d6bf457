"""A pod template over ours: the rules, and that they are the API server's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.devcluster.apiserver.schemas import Node, builtin
from beamlit_operator.devcluster.apiserver.strategic import strategic_merge
from beamlit_operator.workloads.merge import FURTHER, KEYS, SETS, directive_problem, merged
from beamlit_operator.workloads.template import template_problem

TEMPLATE = builtin("io.k8s.api.core.v1.PodTemplateSpec")


def lists(node: Node, name: str = "", above: tuple[Node, ...] = ()) -> Iterator[tuple[str, Node]]:
    """Every list of a type, with its field's name."""
    if any(node is each for each in above):
        return
    if node.type == "array":
        yield name, node
    for child_name, child in node.properties.items():
        yield from lists(child, child_name, (*above, node))
    for child in (node.items, node.extra):
        if child is not None:
            yield from lists(child, "", (*above, node))


def test_the_keys_are_those_of_the_apis_own_types() -> None:
    found = list(lists(TEMPLATE))
    assert len(found) > 50, "the types were not read"
    assert {name: n.merge_key for name, n in found if n.merges and n.merge_key} == dict(KEYS)
    assert {name for name, node in found if node.merges and not node.merge_key} == SETS
    merging = {*KEYS, *SETS}
    assert not [name for name, node in found if name in merging and not node.merges], (
        "a name means two things: the key must depend on the place"
    )
    further = {
        name: tuple(key for key in node.keys if key != node.merge_key)
        for name, node in found
        if node.merges and len(node.keys) > 1
    }
    assert further == {name: (key,) for name, (key, _) in FURTHER.items()}


CONTAINER = {"name": "m", "image": "a", "args": ["--metrics", "--port=1"]}

TABLE: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # An object is merged, a value replaced, null removes.
    ({"hostname": "a"}, {"nodeName": "b"}, {"hostname": "a", "nodeName": "b"}),
    ({"hostname": "a"}, {"hostname": None}, {}),
    (
        {"securityContext": {"runAsUser": 1, "runAsGroup": 2}},
        {"securityContext": {"runAsUser": 3, "runAsGroup": None}},
        {"securityContext": {"runAsUser": 3}},
    ),
    # Lists with a key.
    (
        {"containers": [CONTAINER]},
        {"containers": [{"name": "m", "args": ["x"]}]},
        {"containers": [{**CONTAINER, "args": ["x"]}]},
    ),
    (
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "$patch": "delete"}]},
        {"volumes": [{"name": "w", "emptyDir": {}}]},
    ),
    (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"$patch": "replace"}, {"name": "w", "emptyDir": {}}]},
        {"volumes": [{"name": "w", "emptyDir": {}}]},
    ),
    (
        {"imagePullSecrets": [{"name": "a"}]},
        {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
        {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    ),
    # Removed and given anew: nothing of the old one stays.
    (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "v", "$patch": "delete"}]},
        {"volumes": [{"name": "v", "configMap": {"name": "c"}}]},
    ),
    # $retainKeys, as for the kinds of a volume, of which there may be one.
    (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {
            "volumes": [
                {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}
            ]
        },
        {"volumes": [{"name": "v", "configMap": {"name": "c"}}]},
    ),
    # Objects.
    (
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"$patch": "replace", "b": "2"}},
        {"nodeSelector": {"b": "2"}},
    ),
    ({"nodeSelector": {"a": "1"}}, {"nodeSelector": {"$patch": "delete"}}, {"nodeSelector": {}}),
    # Lists of values.
    (
        {"containers": [CONTAINER]},
        {"containers": [{"name": "m", "$deleteFromPrimitiveList/args": ["--metrics"]}]},
        {"containers": [{**CONTAINER, "args": ["--port=1"]}]},
    ),
    (
        {"dnsConfig": {"searches": ["a"]}},
        {"dnsConfig": {"searches": ["b"]}},
        {"dnsConfig": {"searches": ["b"]}},
    ),
    # Order.
    (
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
        {"containers": [{"name": "b"}, {"name": "a"}]},
    ),
    (
        {"initContainers": [{"name": "fetch"}]},
        {
            "$setElementOrder/initContainers": [{"name": "first"}, {"name": "fetch"}],
            "initContainers": [{"name": "first"}],
        },
        {"initContainers": [{"name": "first"}, {"name": "fetch"}]},
    ),
]

DEVIATIONS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # What happens anyway may be said; Kubernetes refuses it.
    (
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"$patch": "merge", "b": "2"}},
        {"nodeSelector": {"a": "1", "b": "2"}},
    ),
    # What ours lacks is taken; Kubernetes forgets it.
    ({}, {"nodeSelector": {"$patch": "replace", "b": "2"}}, {"nodeSelector": {"b": "2"}}),
    # New entries come behind ours.
    (
        {"containers": [{"name": "model"}]},
        {"containers": [{"name": "sidecar"}]},
        {"containers": [{"name": "model"}, {"name": "sidecar"}]},
    ),
    # Tolerations are added.
    (
        {"tolerations": [{"key": "gpu"}]},
        {"tolerations": [{"key": "spot"}, {"key": "gpu"}]},
        {"tolerations": [{"key": "gpu"}, {"key": "spot"}]},
    ),
    # The same port of another protocol is another port.
    (
        {"containers": [{"name": "m", "ports": [{"name": "http", "containerPort": 80}]}]},
        {"containers": [{"name": "m", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]},
        {
            "containers": [
                {
                    "name": "m",
                    "ports": [
                        {"name": "http", "containerPort": 80},
                        {"containerPort": 80, "protocol": "UDP"},
                    ],
                }
            ]
        },
    ),
]


@pytest.mark.parametrize(("below", "above", "result"), [*TABLE, *DEVIATIONS])
def test_a_template_is_merged(
    below: dict[str, Any], above: dict[str, Any], result: dict[str, Any]
) -> None:
    before = copy.deepcopy((below, above))
    assert merged(below, above) == result
    assert (below, above) == before, "what is merged must not change"


@pytest.mark.parametrize(("below", "above", "result"), TABLE)
def test_the_api_server_merges_the_same(
    below: dict[str, Any], above: dict[str, Any], result: dict[str, Any]
) -> None:
    assert strategic_merge({"spec": below}, {"spec": above}, TEMPLATE) == {"spec": result}


def test_a_port_is_removed_by_its_number_or_by_its_protocol_too() -> None:
    both = {"ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}
    by_number = {"ports": [{"containerPort": 80, "$patch": "delete"}]}
    assert merged(both, by_number) == {"ports": []}
    of_udp = {"ports": [{"containerPort": 80, "protocol": "UDP", "$patch": "delete"}]}
    assert merged(both, of_udp) == {"ports": [{"containerPort": 80}]}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"$patch": "replace"}, "spec.$patch would remove the model's containers"),
        ({"$retainKeys": ["volumes"]}, "spec.$retainKeys would remove the model's containers"),
        ({"containers": [{"$patch": "replace"}]}, "would remove model"),
        ({"initContainers": [{"$patch": "replace"}]}, "would remove fetch"),
        ({"containers": [{"name": "model", "$patch": "delete"}]}, "[model] cannot be removed"),
        ({"volumes": [{"name": "v", "$patch": "drop"}]}, "volumes[v].$patch is 'drop': use merge"),
        ({"nodeSelector": {"$keep": []}}, "nodeSelector.$keep is no directive"),
        ({"$setElementOrder/volumes": {}}, "must be a list"),
        (
            {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]},
            "$retainKeys leaves out emptyDir",
        ),
        ({"containers": [{"name": "model", "env": [{"value": "1"}]}]}, "env[0] has no name"),
        ({"containers": [{"name": "model", "ports": ["80"]}]}, "ports[0] must be an object"),
        (
            {"tolerations": [{"$patch": "delete", "key": "gpu"}]},
            "is no list with a key",
        ),
    ],
)
def test_what_has_no_meaning_is_told_with_its_field(spec: dict[str, Any], sentence: str) -> None:
    found = template_problem({"spec": spec})
    assert found is not None
    assert sentence in found
    assert found.startswith("spec.podTemplate.spec")


def test_every_row_of_the_table_is_accepted() -> None:
    for _, above, _ in (*TABLE, *DEVIATIONS):
        assert template_problem({"spec": above}) is None


# Random pods and templates, of the lists that have a key and of those that have none.

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.sampled_from(["x", "y"])
STRINGS = st.dictionaries(NAMES, TEXTS, max_size=2)


def entries(key: str, values: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> Any:
    """Lists whose entries differ in their key."""
    entry = st.fixed_dictionaries({key: values}, optional=fields)
    return st.lists(entry, max_size=3, unique_by=lambda each: each[key])


MOUNTS = entries("mountPath", NAMES, name=NAMES, readOnly=st.booleans())
PORTS = entries("containerPort", st.sampled_from([80, 81]), name=NAMES)
CONTAINERS: dict[str, Any] = {
    "image": TEXTS,
    "args": st.lists(TEXTS, max_size=2),
    "env": entries("name", NAMES, value=TEXTS),
    "ports": PORTS,
    "volumeMounts": MOUNTS,
    "resources": st.fixed_dictionaries({}, optional={"limits": STRINGS, "requests": STRINGS}),
}
POD: dict[str, Any] = {
    "hostname": TEXTS,
    "nodeSelector": STRINGS,
    "containers": entries("name", NAMES, **CONTAINERS),
    "initContainers": entries("name", NAMES, **CONTAINERS),
    "volumes": entries("name", NAMES, emptyDir=STRINGS, configMap=STRINGS),
    "imagePullSecrets": entries("name", NAMES),
    "hostAliases": entries("ip", NAMES, hostnames=st.lists(TEXTS, max_size=2)),
    "readinessGates": st.lists(st.fixed_dictionaries({"conditionType": NAMES}), max_size=2),
    "dnsConfig": st.fixed_dictionaries({}, optional={"searches": st.lists(TEXTS, max_size=2)}),
}
PODS = st.fixed_dictionaries({}, optional=POD)


@st.composite
def pods_and_templates(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pod spec, and another as a template: with nulls and directives here and there."""
    below = draw(PODS)
    return below, _directed(draw, draw(PODS), below)


def _directed(draw: st.DrawFn, value: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in value.items():
        known = below.get(name)
        if draw(st.integers(0, 9)) == 0:
            found[name] = None
        elif isinstance(each, dict):
            found[name] = _directed(draw, each, known or {})
            # Of one that is not there yet, Kubernetes would take nothing.
            if name in below and draw(st.integers(0, 5)) == 0:
                found[name]["$patch"] = draw(st.sampled_from(["replace", "delete"]))
                found[name] = {at: v for at, v in found[name].items() if not isinstance(v, dict)}
        elif name in KEYS:
            found[name] = _directed_list(draw, name, each, known or [])
        elif isinstance(each, list) and all(isinstance(entry, str) for entry in each):
            found[f"$deleteFromPrimitiveList/{name}" if draw(st.booleans()) else name] = each
        else:
            found[name] = each
    return found


def _directed_list(draw: st.DrawFn, name: str, value: list[Any], below: list[Any]) -> list[Any]:
    replaced = draw(st.integers(0, 9)) == 0
    known = {} if replaced else {each[KEYS[name]]: each for each in below}
    found = [_entry(draw, KEYS[name], each, known) for each in value]
    return [{"$patch": "replace"}, *found] if replaced else found


def _entry(
    draw: st.DrawFn, key: str, entry: dict[str, Any], known: dict[str, Any]
) -> dict[str, Any]:
    if draw(st.integers(0, 5)) == 0:
        return {key: entry[key], "$patch": "delete"}
    rest = {at: value for at, value in entry.items() if at != key}
    found = {key: entry[key], **_directed(draw, rest, known.get(entry[key], {}))}
    if draw(st.integers(0, 7)) == 0:
        fields = [at for at in found if not at.startswith("$")]
        fields += [at.partition("/")[2] for at in found if "/" in at]
        found["$retainKeys"] = fields
    return found


def in_one_order(value: Any, name: str = "") -> Any:
    """With the lists that have a key sorted by it: where a new entry goes is ours to say."""
    if isinstance(value, dict):
        return {at: in_one_order(each, at) for at, each in value.items()}
    if isinstance(value, list):
        found = [in_one_order(each) for each in value]
        return sorted(found, key=lambda each: str(each[KEYS[name]])) if name in KEYS else found
    return value


@settings(max_examples=300, deadline=None)
@given(pods_and_templates())
def test_any_template_gives_what_the_api_server_gives(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    below, above = both
    assert directive_problem(above, "spec") is None
    theirs = strategic_merge({"spec": below}, {"spec": above}, TEMPLATE)
    assert in_one_order({"spec": merged(below, above)}) == in_one_order(theirs)


@settings(max_examples=100, deadline=None)
@given(below=PODS, above=PODS, data=st.data())
def test_an_order_that_names_all_is_the_api_servers(
    below: dict[str, Any], above: dict[str, Any], data: st.DataObject
) -> None:
    names = {each["name"] for side in (below, above) for each in side.get("volumes", ())}
    order = data.draw(st.permutations([{"name": each} for each in sorted(names)]))
    above = {"volumes": above.get("volumes", []), "$setElementOrder/volumes": order}
    theirs = strategic_merge({"spec": below}, {"spec": above}, TEMPLATE)["spec"]
    assert merged(below, above).get("volumes") == theirs.get("volumes")


@settings(max_examples=100, deadline=None)
@given(pod=PODS)
def test_a_template_laid_over_itself_or_an_empty_one_changes_nothing(pod: dict[str, Any]) -> None:
    assert merged(pod, pod) == pod
    assert merged(pod, {}) == pod
    assert merged({}, pod) == pod
