"""Pods that a policy no longer lets stay: they go at once, before replacements are ready.

Deleting a pod is not enough: its ReplicaSet would make another of the same old template.

| the pod's Deployment                     | besides deleting the pod                             |
|------------------------------------------|------------------------------------------------------|
| gets a new template in the same plan     | may be short of as many pods while it rolls          |
| stays as it is (old revision, held back) | is scaled to the pods that may stay                  |

That a loosened policy disturbs nothing is the template's matter (`workloads.placing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from beamlit_operator.api import labels as names
from beamlit_operator.controllers.plan import Deletion, Scale
from beamlit_operator.kube import PODS, Json
from beamlit_operator.policy import Catalogue, EffectivePolicy
from beamlit_operator.policy.nodes import hardware_allows, location_allows
from beamlit_operator.workloads.devices import devices_of
from beamlit_operator.workloads.placing import allows_no_more, policy_of

GRACE = 4
"""Seconds an evicted pod gets for the requests it has: none may be answered after five."""


def outdated(workload: Json, policy: EffectivePolicy, *, catalogue: Catalogue) -> bool:
    """Whether a Deployment's template was made for more than the policies allow now: a pod of it
    might start where it would be removed again."""
    made_for = policy_of(workload["metadata"].get("annotations") or {})
    return made_for is None or not allows_no_more(made_for, policy, catalogue=catalogue)


def outside(
    pods: Iterable[Json],
    policy: EffectivePolicy,
    *,
    node_labels: Mapping[str, Mapping[str, str]],
    catalogue: Catalogue,
) -> list[Deletion]:
    """The pods that run where, or on what, the policies do not let them.

    ``node_labels`` has no labels for a node that is gone: such a pod is nowhere that a policy
    allows. A node that is missing in it is waited for.
    """
    gone = []
    for pod in pods:
        metadata = pod["metadata"]
        labels = node_labels.get((pod.get("spec") or {}).get("nodeName") or "")
        if labels is None or metadata.get("deletionTimestamp"):
            continue
        hardware = policy.flavor.allowed
        if hardware is not None and devices_of(pod.get("spec") or {}, catalogue=catalogue):
            # That the node's processor is allowed does not allow its GPU.
            hardware = frozenset(value for value in hardware if value.kind == "gpu")
        if location_allows(policy.location.allowed, labels, catalogue=catalogue) and (
            hardware_allows(hardware, labels, catalogue=catalogue)
        ):
            continue
        because = "its node, or the GPU it has there, is outside what the policies allow"
        gone.append(Deletion(PODS, metadata["name"], metadata.get("uid", ""), because, GRACE))
    return gone


def per_revision(pods: Iterable[Json], gone: Iterable[Deletion]) -> Counter[str]:
    """How many pods of each revision are being removed, of those that a Deployment made."""
    uids = {deletion.uid for deletion in gone}
    return Counter(
        (pod["metadata"].get("labels") or {}).get(names.REVISION, "")
        for pod in pods
        if pod["metadata"].get("uid") in uids and pod["metadata"].get("ownerReferences")
    )


def shrunk(
    workloads: Iterable[Json], evicted: Mapping[str, int], *, rebuilt: Container[str]
) -> list[Scale]:
    """The scales of Deployments that keep a template which would bring evicted pods back."""
    scales = []
    for each in workloads:
        name = each["metadata"]["name"]
        wanted = int((each.get("spec") or {}).get("replicas") or 0)
        if evicted.get(name) and wanted and name not in rebuilt:
            because = "its template is for nodes outside what the policies allow"
            scales.append(Scale(name, max(wanted - evicted[name], 0), because))
    return scales


def yielding(wanted: Json, live: Json | None, evicted: int) -> Json:
    """The Deployment, allowed to be short of the evicted pods until its roll-out is over.

    Without it, a Deployment keeps its old ReplicaSet whole until a new pod is ready, and that one
    goes on making pods where none may be.
    """
    short: object = evicted
    if not evicted:
        if live is None or not _rolls(live):
            return wanted
        strategy = (live.get("spec") or {}).get("strategy") or {}
        short = (strategy.get("rollingUpdate") or {}).get("maxUnavailable") or 0
    spec = wanted["spec"]
    rolling = {**spec["strategy"]["rollingUpdate"], "maxUnavailable": short}
    return {**wanted, "spec": {**spec, "strategy": {**spec["strategy"], "rollingUpdate": rolling}}}


def _rolls(live: Json) -> bool:
    """Whether a Deployment has pods of an older template, or has not looked at its newest."""
    status = live.get("status") or {}
    return (status.get("observedGeneration") or 0) < (live["metadata"].get("generation") or 0) or (
        (status.get("replicas") or 0) > (status.get("updatedReplicas") or 0)
    )
