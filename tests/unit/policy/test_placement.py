"""Affinity and `node_allows` agree on every node, and both keep to the labels' order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy import Aspect, EffectivePolicy, Value, built_in
from beamlit_operator.policy.algebra import reduced
from beamlit_operator.policy.locations import PolicyType, parents
from beamlit_operator.policy.placement import node_allows, place, why_no_node

LOCATION = "beamlit.com/location"
COUNTRY = "beamlit.com/country"
CONTINENT = "beamlit.com/continent"
FLAVOR = "beamlit.com/flavor"
REGION = "topology.kubernetes.io/region"
PRODUCT = "nvidia.com/gpu.product"
ARCH = "kubernetes.io/arch"


def held_to(*values: str) -> EffectivePolicy:
    parsed = [Value(*value.split(":")) for value in values]
    locations = [value for value in parsed if value.kind not in ("cpu", "gpu")]
    flavors = frozenset(value for value in parsed if value.kind in ("cpu", "gpu"))
    parent = parents(PolicyType.LOCATION, built_in())
    return EffectivePolicy(
        location=Aspect(reduced(locations, parent) if locations else None, ()),
        flavor=Aspect(flavors or None, ()),
    )


def admits(affinity: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """Kubernetes' own rule: any term, and in it all expressions."""
    if affinity is None:
        return True
    required = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

    def holds(expression: dict[str, Any]) -> bool:
        key = expression["key"]
        if expression["operator"] == "In":
            return labels.get(key) in expression["values"]
        assert expression["operator"] == "DoesNotExist"
        return key not in labels

    assert required["nodeSelectorTerms"]
    return any(all(map(holds, t["matchExpressions"])) for t in required["nodeSelectorTerms"])


@pytest.mark.parametrize(
    ("values", "labels", "allowed"),
    [
        (["country:us"], {REGION: "us-east-1"}, True),
        (["country:us"], {REGION: "eastus"}, True),
        (["country:us"], {REGION: "us-central1"}, True),
        (["country:us"], {REGION: "eu-west-1"}, False),
        (["country:us"], {}, False),
        (["country:us"], {REGION: "us-east-1", COUNTRY: "de"}, False),
        (["country:us"], {REGION: "eu-west-1", COUNTRY: "us"}, True),
        (["country:us"], {REGION: "eu-west-1", COUNTRY: "US"}, True),
        (["country:us"], {LOCATION: "eu-west-1", COUNTRY: "us"}, False),
        (["country:us"], {LOCATION: "us-east-1", COUNTRY: "de"}, True),
        (["country:us"], {REGION: "us-east-1", CONTINENT: "na"}, False),
        (["continent:na"], {CONTINENT: "NA"}, True),
        (["continent:na"], {COUNTRY: "ca", CONTINENT: "eu"}, True),
        (["continent:eu"], {REGION: "europe-west6"}, True),
        (["continent:eu"], {LOCATION: "berlin-1"}, False),
        (["location:berlin-1"], {LOCATION: "berlin-1"}, True),
        (["location:berlin-1"], {REGION: "berlin-1"}, True),
        (["location:us-east-1"], {COUNTRY: "us"}, False),
        (["country:no"], {REGION: "norwayeast"}, True),
        (["gpu:t4"], {PRODUCT: "Tesla-T4"}, True),
        (["gpu:t4"], {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, True),
        (["gpu:t4"], {"karpenter.k8s.aws/instance-gpu-name": "t4"}, True),
        (["gpu:t4"], {"node.kubernetes.io/instance-type": "Standard_NC4as_T4_v3"}, True),
        (["gpu:t4"], {PRODUCT: "NVIDIA-L4"}, False),
        (["gpu:t4"], {PRODUCT: "Tesla-T4", FLAVOR: "l4"}, False),
        (["gpu:t4"], {PRODUCT: "NVIDIA-L4", FLAVOR: "T4"}, True),
        (["cpu:x86"], {ARCH: "amd64"}, True),
        (["cpu:x86"], {ARCH: "arm64"}, False),
        (["cpu:x86", "gpu:t4"], {ARCH: "arm64", PRODUCT: "Tesla-T4"}, False),
        (["country:us", "gpu:t4"], {REGION: "us-east-1", PRODUCT: "Tesla-T4"}, True),
        (["country:us", "gpu:t4"], {REGION: "eu-west-1", PRODUCT: "Tesla-T4"}, False),
        (["country:us", "gpu:t4"], {REGION: "us-east-1", ARCH: "amd64"}, False),
    ],
)
def test_a_node_is_let_in_by_its_labels_in_their_order(
    values: list[str], labels: dict[str, str], allowed: bool
) -> None:
    policy = held_to(*values)
    assert node_allows(policy, labels) is allowed
    assert admits(place(policy).affinity, labels) is allowed


VALUES = st.sampled_from(
    [
        "continent:na", "continent:eu", "continent:an", "country:us", "country:de", "country:no",
        "country:xx", "location:us-east-1", "location:eu-west-1", "location:berlin-1",
        "location:eastus", "cpu:x86", "cpu:arm", "cpu:vax", "gpu:t4", "gpu:l4", "gpu:rtx4090",
    ]
)  # fmt: skip
PLACES = st.sampled_from(["us-east-1", "eu-west-1", "eastus", "berlin-1", "US-EAST-1", "x", ""])
NODES = st.fixed_dictionaries(
    {},
    optional={
        LOCATION: PLACES,
        COUNTRY: st.sampled_from(["us", "US", "Us", "de", "no", "xx", ""]),
        CONTINENT: st.sampled_from(["na", "NA", "eu", "Eu", "an", "zz"]),
        REGION: PLACES,
        ARCH: st.sampled_from(["amd64", "arm64", "vax"]),
        FLAVOR: st.sampled_from(["t4", "T4", "l4", "rtx4090", "x86"]),
        PRODUCT: st.sampled_from(["Tesla-T4", "NVIDIA-L4", "NVIDIA-H200"]),
        "karpenter.k8s.aws/instance-gpu-name": st.sampled_from(["t4", "l4", "h100"]),
    },
)
REQUESTED = st.lists(
    st.sampled_from([Flavor(type="gpu", name="T4"), Flavor(type="gpu", name="l4")]), max_size=2
) | st.lists(st.just(Flavor(type="cpu", name="amd64")), max_size=1)


@settings(max_examples=400, deadline=None)
@given(values=st.lists(VALUES, max_size=4), labels=NODES, requested=REQUESTED)
def test_affinity_and_node_allows_agree_on_every_node(
    values: list[str], labels: dict[str, str], requested: list[Flavor]
) -> None:
    policy = held_to(*values)
    affinity = place(policy, requested=requested).affinity
    assert admits(affinity, labels) is node_allows(policy, labels, requested=requested)


@settings(max_examples=200, deadline=None)
@given(wide=VALUES, labels=NODES)
def test_a_smaller_place_never_lets_in_a_node_that_the_larger_one_keeps_out(
    wide: str, labels: dict[str, str]
) -> None:
    parent = parents(PolicyType.LOCATION, built_in())
    above = parent(Value(*wide.split(":")))
    if above is not None and node_allows(held_to(wide), labels):
        assert node_allows(held_to(str(above)), labels)


def test_nothing_is_said_when_anything_is_allowed() -> None:
    assert place(held_to()).affinity is None


def test_a_gpu_flavor_asks_for_the_device_and_tolerates_its_taint() -> None:
    placement = place(held_to("gpu:t4", "gpu:l4"), requested=[Flavor(type="gpu", name="L4")])
    assert placement.devices == {"nvidia.com/gpu": 1}
    assert placement.tolerations == (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    assert not placement.forbidden


def test_who_asks_for_no_gpu_gets_none_while_a_cpu_is_allowed() -> None:
    placement = place(held_to("gpu:t4", "cpu:x86"))
    assert not placement.devices
    assert not admits(placement.affinity, {PRODUCT: "Tesla-T4"})


def test_a_flavor_that_is_not_allowed_is_reported_and_never_placed() -> None:
    requested = [Flavor(type="gpu", name="l4")]
    placement = place(held_to("gpu:t4"), requested=requested)
    assert placement.forbidden == (Value("gpu", "l4"),)
    assert not admits(placement.affinity, {PRODUCT: "NVIDIA-L4"})
    assert not node_allows(held_to("gpu:t4"), {PRODUCT: "NVIDIA-L4"}, requested=requested)


def test_a_deployment_that_fits_nowhere_is_told_what_was_allowed_and_what_exists() -> None:
    nodes = [{REGION: "eu-west-1", ARCH: "amd64"}, {REGION: "eu-west-1", ARCH: "amd64"}, {}]
    message = why_no_node(held_to("country:us"), nodes)
    assert message is not None
    assert "allowed are country:us as location" in message
    assert "2 nodes in location:eu-west-1 with cpu:x86" in message
    assert why_no_node(held_to("country:ie"), nodes) is None
