"""Pods that a policy no longer lets stay: they go at once, before replacements are ready.

That a loosened policy disturbs nothing is the template's matter (`workloads.placing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from beamlit_operator.controllers.plan import Deletion
from beamlit_operator.kube import PODS, Json
from beamlit_operator.policy import Catalogue, EffectivePolicy
from beamlit_operator.policy.nodes import hardware_allows, location_allows


def outside(
    pods: Iterable[Json],
    policy: EffectivePolicy,
    *,
    node_labels: Mapping[str, Mapping[str, str]],
    catalogue: Catalogue,
) -> list[Deletion]:
    """The pods that run where the policies do not let them. A node not known yet is waited for."""
    gone = []
    for pod in pods:
        metadata = pod["metadata"]
        labels = node_labels.get((pod.get("spec") or {}).get("nodeName") or "")
        if labels is None or metadata.get("deletionTimestamp"):
            continue
        if location_allows(policy.location.allowed, labels, catalogue=catalogue) and (
            hardware_allows(policy.flavor.allowed, labels, catalogue=catalogue)
        ):
            continue
        because = "its node is outside what the policies allow"
        gone.append(Deletion(PODS, metadata["name"], metadata.get("uid", ""), because))
    return gone
