"""What a pod's claims stand for: the volumes they are bound to, looked up when the pod starts."""

from __future__ import annotations

from beamlit_operator.devcluster.claims import (
    CLAIM_PROTECTION,
    CLAIMS,
    VOLUMES,
    claim_names,
    is_bound_to,
    is_going,
    phase,
    usable_on,
)
from beamlit_operator.devcluster.kubelet.machine import Machine
from beamlit_operator.kube import NODES, Json, Resource


class ClaimError(Exception):
    """A claim cannot be mounted yet; the text is the kubelet's."""


async def volumes_of(pod: Json, machine: Machine) -> dict[str, Json]:
    """The PersistentVolume of each claim that the pod names.

    Raises:
        ClaimError: one is missing, not bound, lost, or of another node.
        ApiError: the API server cannot be asked.
    """
    names = set(claim_names(pod))
    if not names:
        return {}
    namespace = pod["metadata"]["namespace"]
    claims = await machine.objects(CLAIMS, namespace, names)
    result = {}
    for name in sorted(names):
        try:
            result[name] = await _volume(name, claims.get(name), pod, machine)
        except ClaimError as error:
            raise ClaimError(f"error processing PVC {namespace}/{name}: {error}") from error
    return result


async def _volume(name: str, claim: Json | None, pod: Json, machine: Machine) -> Json:
    if claim is None:
        raise ClaimError(
            f'failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found'
        )
    if is_going(claim) and CLAIM_PROTECTION not in (claim["metadata"].get("finalizers") or ()):
        raise ClaimError("PVC is being deleted")
    if phase(claim) != "Bound":
        raise ClaimError("PVC is not bound")
    wanted = claim["spec"].get("volumeName") or ""
    volume = await _one(machine, VOLUMES, wanted)
    if volume is None:
        raise ClaimError(
            f'failed to fetch PV {wanted} from API server: persistentvolumes "{wanted}" not found'
        )
    if not is_bound_to(volume, claim):
        raise ClaimError(f"found PV object {wanted} with unexpected pvcUID")
    node = await _one(machine, NODES, pod["spec"].get("nodeName", ""))
    if node is not None and not usable_on(volume, node):
        raise ClaimError(
            f"volume {wanted} cannot be used on this node: no matching NodeSelectorTerms"
        )
    if (volume["spec"].get("volumeMode") or "Filesystem") != "Filesystem":
        raise ClaimError(f"volume {wanted} has volumeMode Block, which the embedded cluster lacks")
    return volume


async def _one(machine: Machine, resource: Resource, name: str) -> Json | None:
    """A cluster-scoped object, None when there is none."""
    return (await machine.objects(resource, "", {name})).get(name) if name else None
