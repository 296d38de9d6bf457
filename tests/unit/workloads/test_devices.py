"""A device that only this cluster knows is no way around a flavor policy either."""

from __future__ import annotations

import pytest

from beamlit_operator.controllers.bounds import outside
from beamlit_operator.policy import Aspect, EffectivePolicy, Value
from beamlit_operator.policy.extending import extended
from beamlit_operator.workloads.devices import DeviceNotAllowedError, devices_of, flavors_to_place

NPU = """
devices: {npu: {resource: acme.com/npu}}
gpu: {big: {device: npu, labels: {acme.com/model: [big]}}}
"""
OWN = extended({"flavors.yaml": NPU}).catalogue
ONLY_CPU = frozenset({Value("cpu", "x86")})
POD = {"containers": [{"name": "model", "resources": {"limits": {"acme.com/npu": 1}}}]}


def test_the_clusters_own_device_is_refused_where_only_cpus_are_allowed() -> None:
    with pytest.raises(DeviceNotAllowedError, match=r"acme\.com/npu"):
        flavors_to_place(POD, requested=(), allowed=ONLY_CPU, catalogue=OWN)


def test_the_clusters_own_device_comes_down_to_the_flavor_that_has_it() -> None:
    allowed = ONLY_CPU | {Value("gpu", "big"), Value("gpu", "t4")}
    found = flavors_to_place(POD, requested=(), allowed=allowed, catalogue=OWN)
    assert [each.name for each in found] == ["big"]


def test_a_pod_that_holds_the_clusters_own_device_leaves_when_only_cpus_are_allowed() -> None:
    policy = EffectivePolicy(location=Aspect(None, ()), flavor=Aspect(ONLY_CPU, ()))
    labels = {"node": {"kubernetes.io/arch": "amd64", "acme.com/model": "big"}}
    pod = {"metadata": {"name": "a", "uid": "u"}, "spec": {**POD, "nodeName": "node"}}
    assert outside([pod], policy, node_labels=labels, catalogue=OWN)


def test_what_is_no_device_is_none() -> None:
    pod = {"containers": [{"name": "m", "resources": {"limits": {"acme.com/licence": 1}}}]}
    assert devices_of(pod, catalogue=OWN) == frozenset()
