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
ZONE = "topology.kubernetes.io/zone"
TYPE = "node.kubernetes.io/instance-type"
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
        if expression["operator"] == "NotIn":
            return labels.get(key) not in expression["values"]
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
        (["location:us-east-1"], {REGION: "us-east-1", ZONE: "us-east-1a"}, True),
        (["location:us-east-1a"], {REGION: "us-east-1", ZONE: "us-east-1a"}, True),
        (["location:us-east-1a"], {REGION: "us-east-1", ZONE: "us-east-1b"}, False),
        (["location:us-east-1a"], {REGION: "us-east-1"}, False),
        (["location:us-east-1a"], {ZONE: "us-east-1a"}, False),
        (["location:us-east-1a"], {LOCATION: "us-east-1a"}, False),
        (["location:us-east-1"], {LOCATION: "us-east-1a"}, False),
        (["location:phx-ad-1"], {LOCATION: "phx-ad-1"}, True),
        (["location:us-phoenix-1"], {LOCATION: "PHX-AD-1"}, True),
        (["country:us"], {REGION: "us-east-1", ZONE: "us-east-1-bue-1a"}, False),
        (["location:us-east-1"], {REGION: "us-east-1", ZONE: "us-east-1-bue-1a"}, False),
        (["country:ar"], {REGION: "us-east-1", ZONE: "us-east-1-bue-1a"}, True),
        (["country:ar"], {REGION: "us-east-1", ZONE: "us-east-1a"}, False),
        (["continent:sa"], {REGION: "us-east-1", ZONE: "us-east-1-lim-1a"}, True),
        (
            ["country:us", "continent:sa"],
            {REGION: "us-east-1", ZONE: "us-east-1-bue-1a"},
            True,
        ),
        (["country:us"], {REGION: "us-east-1", ZONE: "us-east-1-lax-9z"}, True),
        (["country:us"], {REGION: "us-east-1", ZONE: "eu-west-1a"}, True),
        (["country:fr"], {REGION: "GRA11", ZONE: "nova"}, True),
        (["country:us"], {REGION: "iad", ZONE: "US-ASHBURN-AD-1"}, True),
        (["location:us-ashburn-ad-1"], {REGION: "iad", ZONE: "US-ASHBURN-AD-1"}, True),
        (["country:gb"], {REGION: "uk-london-1", ZONE: "UK-LONDON-1-AD-1"}, True),
        (["country:us"], {REGION: "US-EAST-04", ZONE: "US-EAST-04A"}, True),
        (["country:sa"], {REGION: "me-west-1"}, False),
        (["location:me-west-1"], {REGION: "me-west-1"}, True),
        (["gpu:a100"], {PRODUCT: "NVIDIA-A100-SXM4-80GB"}, True),
        (["gpu:a100-40gb"], {PRODUCT: "NVIDIA-A100-SXM4-80GB"}, False),
        (["gpu:a100-80gb"], {"karpenter.k8s.aws/instance-gpu-name": "a100"}, False),
        (["gpu:a100"], {FLAVOR: "A100-80GB"}, True),
        (["gpu:a100-80gb"], {FLAVOR: "a100"}, False),
        (["gpu:a100"], {TYPE: "p4d.24xlarge"}, True),
        (["gpu:a100"], {TYPE: "p4d.24xlarge", PRODUCT: "A100-SXM4-40GB-MIG-1g.5gb"}, False),
        (["gpu:t4"], {PRODUCT: "Tesla-T4-SHARED"}, True),
        (["gpu:mi300x"], {"amd.com/gpu.device-id": "74a1"}, True),
        (["gpu:tpu-v6e"], {"cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice"}, True),
        (["gpu:trainium2"], {"karpenter.k8s.aws/instance-accelerator-name": "trainium2"}, True),
        (["gpu:gaudi3"], {FLAVOR: "gaudi3"}, True),
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
        "location:eastus", "location:us-east-1a", "location:us-east-1-bue-1a", "country:ar",
        "continent:sa", "country:fr", "location:gra11", "location:phx-ad-1", "country:sa",
        "gpu:a100", "gpu:a100-80gb", "cpu:x86", "cpu:arm", "cpu:vax", "gpu:t4", "gpu:l4",
        "gpu:rtx4090",
    ]
)  # fmt: skip
PLACES = st.sampled_from(
    [
        "us-east-1", "eu-west-1", "eastus", "berlin-1", "US-EAST-1", "x", "", "GRA11", "gra11",
        "Gra11", "phx", "us-phoenix-1", "me-west-1", "us-east-1a", "us-east-1-bue-1a", "PHX-AD-1",
    ]
)  # fmt: skip
ZONES = st.sampled_from(
    ["us-east-1a", "us-east-1-bue-1a", "us-east-1-lim-1a", "eastus-1", "PHX-AD-1", "nova", ""]
)
NODES = st.fixed_dictionaries(
    {},
    optional={
        LOCATION: PLACES,
        COUNTRY: st.sampled_from(["us", "US", "Us", "de", "no", "xx", ""]),
        CONTINENT: st.sampled_from(["na", "NA", "eu", "Eu", "an", "zz"]),
        REGION: PLACES,
        ZONE: ZONES,
        ARCH: st.sampled_from(["amd64", "arm64", "vax"]),
        FLAVOR: st.sampled_from(["t4", "T4", "l4", "rtx4090", "x86", "a100", "A100-80GB"]),
        PRODUCT: st.sampled_from(["Tesla-T4", "NVIDIA-L4", "NVIDIA-A100-SXM4-80GB"]),
        "karpenter.k8s.aws/instance-gpu-name": st.sampled_from(["t4", "l4", "a100"]),
        TYPE: st.sampled_from(["g4dn.xlarge", "p4d.24xlarge", "m5.large"]),
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


@settings(max_examples=400, deadline=None)
@given(wide=VALUES, labels=NODES)
def test_a_smaller_place_never_lets_in_a_node_that_the_larger_one_keeps_out(
    wide: str, labels: dict[str, str]
) -> None:
    parent = parents(PolicyType.LOCATION, built_in())
    above = parent(Value(*wide.split(":")))
    if above is not None and node_allows(held_to(wide), labels):
        assert node_allows(held_to(str(above)), labels)


def test_a_message_about_many_kinds_of_nodes_stays_short() -> None:
    kinds = [({LOCATION: f"site-{number}"}, number) for number in range(1, 400)]
    message = why_no_node(held_to("country:us"), kinds)
    assert message is not None
    assert "399 nodes in location:site-399" in message
    assert "of 391 other kinds" in message
    assert len(message) < 1000


def test_affinity_lists_no_zone_unless_one_is_abroad_or_named() -> None:
    def keys(policy: EffectivePolicy) -> set[str]:
        affinity = place(policy).affinity
        assert affinity is not None
        required = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        return {e["key"] for t in required["nodeSelectorTerms"] for e in t["matchExpressions"]}

    assert ZONE not in keys(held_to("country:ie"))
    assert ZONE in keys(held_to("country:us"))


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
    kinds = [({REGION: "eu-west-1", ARCH: "amd64"}, 2), ({}, 1)]
    message = why_no_node(held_to("country:us"), kinds)
    assert message is not None
    assert "allowed are country:us as location" in message
    assert "2 nodes in location:eu-west-1 with cpu:x86" in message
    assert why_no_node(held_to("country:ie"), kinds) is None
