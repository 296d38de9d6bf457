"""Scheduling decisions, as tables and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.devcluster.scheduler.choice import Decision, Snapshot, decide
from beamlit_operator.devcluster.scheduler.fit import reasons_against, requests
from beamlit_operator.devcluster.selectors import requirement_holds


def node(name: str, *, taints: Any = (), **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    }


def gpu_node(name: str, count: int = 1) -> dict[str, Any]:
    found = node(name)
    found["status"]["allocatable"]["nvidia.com/gpu"] = str(count)
    return found


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c"}], **spec},
    }


def asking(**amounts: str) -> dict[str, Any]:
    limits = {name.replace("gpu", "nvidia.com/gpu"): value for name, value in amounts.items()}
    return pod(containers=[{"name": "c", "resources": {"limits": limits}}])


def required(*terms: Any) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (expression("a", "In", "1", "5"), True),
        (expression("a", "In", "6"), False),
        (expression("b", "In", "5"), False),
        (expression("a", "NotIn", "5"), False),
        (expression("b", "NotIn", "5"), True),
        (expression("a", "Exists"), True),
        (expression("b", "Exists"), False),
        (expression("a", "DoesNotExist"), False),
        (expression("b", "DoesNotExist"), True),
        (expression("a", "Gt", "4"), True),
        (expression("a", "Gt", "5"), False),
        (expression("a", "Lt", "6"), True),
        (expression("t", "Lt", "6"), False),
        (expression("b", "Gt", "-1"), False),
    ],
)
def test_each_operator_holds_when_kubernetes_says_so(requirement: Any, holds: bool) -> None:
    assert requirement_holds(requirement, {"a": "5", "t": "text"}) is holds


def test_one_matching_term_of_several_is_enough() -> None:
    wanted = pod(
        affinity=required(
            {"matchExpressions": [expression("region", "In", "mars")]},
            {"matchExpressions": [expression("region", "In", "eu")]},
        )
    )
    nodes = [node("us", region="us"), node("eu", region="eu")]
    assert decide(Snapshot(wanted, nodes, {})) == Decision(node="eu")


def test_a_term_by_node_name_field_matches_that_node_only() -> None:
    field = {"matchFields": [expression("metadata.name", "In", "b")]}
    assert decide(Snapshot(pod(affinity=required(field)), [node("a"), node("b")], {})).node == "b"


def test_an_empty_term_matches_no_node() -> None:
    decision = decide(Snapshot(pod(affinity=required({})), [node("a")], {}))
    assert decision.message == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )


def test_the_message_counts_reasons_as_kube_scheduler_does() -> None:
    wanted = asking(gpu="1")
    wanted["spec"]["nodeSelector"] = {"region": "us"}
    nodes = [node("a", region="us"), node("b"), node("c")]
    assert decide(Snapshot(wanted, nodes, {})).message == (
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, "
        "2 node(s) didn't match Pod's node affinity/selector."
    )


def test_a_device_in_use_is_not_given_out_twice() -> None:
    first, second = asking(gpu="1"), asking(gpu="1")
    assert decide(Snapshot(second, [gpu_node("a")], {"a": [first]})).node is None
    assert decide(Snapshot(second, [gpu_node("a", 2)], {"a": [first]})).node == "a"


@pytest.mark.parametrize(
    ("tolerations", "fits"),
    [
        ([], False),
        ([{"operator": "Exists"}], True),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], True),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False),
        ([{"key": "gpu", "value": "yes"}], True),
        ([{"key": "gpu", "value": "no"}], False),
    ],
)
def test_a_taint_keeps_out_what_does_not_tolerate_it(tolerations: Any, fits: bool) -> None:
    tainted = node("a", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    reasons = reasons_against(pod(tolerations=tolerations), tainted, {})
    assert (not reasons) is fits
    if not fits:
        assert reasons == ("node(s) had untolerated taint(s)",)


def test_an_unschedulable_node_takes_no_new_pod() -> None:
    cordoned = node("a")
    cordoned["spec"]["unschedulable"] = True
    assert decide(Snapshot(pod(), [cordoned], {})).message == (
        "0/1 nodes are available: 1 node(s) were unschedulable."
    )


def test_without_nodes_the_message_says_that() -> None:
    assert decide(Snapshot(pod(), [], {})).message == "no nodes available to schedule pods"


def test_the_emptier_node_is_chosen() -> None:
    nodes = [node("a"), node("b")]
    assert decide(Snapshot(pod(), nodes, {"a": [pod("x")]})).node == "b"


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeName": "a"},
        {"schedulerName": "mine"},
        {"schedulingGates": [{"name": "wait"}]},
    ],
)
def test_pods_that_are_not_ours_are_left_alone(spec: Any) -> None:
    assert decide(Snapshot(pod(**spec), [node("a")], {})) == Decision()


def test_required_pod_affinity_is_refused_rather_than_ignored() -> None:
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}
    message = decide(Snapshot(pod(affinity={"podAntiAffinity": rule}), [node("a")], {})).message
    assert message is not None
    assert "does not support required podAntiAffinity" in message


def test_init_containers_count_by_their_peak_and_sidecars_by_their_sum() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": cpu, "resources": {"requests": {"cpu": cpu}}, **more}

    wanted = pod(
        containers=[container("1"), container("500m")],
        initContainers=[container("100m", restartPolicy="Always"), container("3")],
    )
    assert requests(wanted)["cpu"] == requests(pod(containers=[container("3100m")]))["cpu"]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
    st.lists(st.integers(0, 2), max_size=12),
)
def test_no_node_is_ever_given_more_devices_than_it_has(have: list[int], want: list[int]) -> None:
    nodes = [gpu_node(f"n{number}", count) for number, count in enumerate(have)]
    on: dict[str, list[dict[str, Any]]] = {}
    for count in want:
        wanted = asking(gpu=str(count))
        decision = decide(Snapshot(wanted, nodes, on))
        assert (decision.node is None) != (decision.message is None)
        if decision.node is not None:
            on.setdefault(decision.node, []).append(wanted)
    for number, count in enumerate(have):
        used = sum(
            int(requests(item).get("nvidia.com/gpu", 0)) for item in on.get(f"n{number}", ())
        )
        assert used <= count
