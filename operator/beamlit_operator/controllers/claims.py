"""PersistentVolumeClaims that hold models' files: read when an origin is looked at, not followed.

| the claim                                                | result                          |
|----------------------------------------------------------|---------------------------------|
| is not there, or may not be read                         | ClaimNotFound                   |
| is being deleted, lost its volume, or is a block device  | ClaimNotUsable                  |
| is Pending, and its class waits for a pod                | its uid: a pod binds it         |
| is Pending, and its class cannot be read                 | its uid: the scheduler will say |
| is Pending else                                          | ClaimNotUsable                  |
| is Bound                                                 | its uid                         |

A problem is looked at again every few seconds, so that it passes by itself.
"""

from __future__ import annotations

from beamlit_operator.api import Reason
from beamlit_operator.controllers.credentials import OpeningProblemError
from beamlit_operator.kube import (
    PERSISTENT_VOLUME_CLAIMS,
    ApiError,
    Json,
    KubeClient,
    Resource,
)

CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)


async def usable_claim(client: KubeClient, workspace: str, name: str) -> tuple[str, str]:
    """The claim's uid, and what tells whether it changed.

    Raises:
        OpeningProblemError: by the table above.
        ApiError: the API server did not answer.
    """
    try:
        claim = await client.get(PERSISTENT_VOLUME_CLAIMS, name, workspace)
    except ApiError as error:
        if error.not_found:
            problem = f"PersistentVolumeClaim {name} does not exist in {workspace}: create it"
        elif error.status == 403:
            problem = (
                f"the operator may not read PersistentVolumeClaim {name} in {workspace}: its "
                "ClusterRole is older than this version, so upgrade the chart"
            )
        else:
            raise
        raise OpeningProblemError(Reason.CLAIM_NOT_FOUND, problem) from None
    why = await _problem(client, claim)
    if why is not None:
        raise OpeningProblemError(
            Reason.CLAIM_NOT_USABLE, f"PersistentVolumeClaim {name} in {workspace} {why}"
        )
    metadata = claim["metadata"]
    return str(metadata["uid"]), f"{metadata['uid']}:{_phase(claim)}"


async def _problem(client: KubeClient, claim: Json) -> str | None:
    if "deletionTimestamp" in claim["metadata"]:
        return "is being deleted: create it again"
    if claim["spec"].get("volumeMode") == "Block":
        return "is a block device: use a claim with volumeMode Filesystem"
    phase = _phase(claim)
    if phase == "Lost":
        return "has lost its volume, and with it the files: create it again"
    if phase == "Pending" and not await _may_wait(client, claim):
        return (
            "is not bound to a volume yet: it goes on when it is; kubectl describe "
            f"persistentvolumeclaim {claim['metadata']['name']} says what it waits for"
        )
    return None


def _phase(claim: Json) -> str:
    return str((claim.get("status") or {}).get("phase", "Pending"))


async def _may_wait(client: KubeClient, claim: Json) -> bool:
    """Whether the claim is bound only when a pod uses it, or nobody can say."""
    name = claim["spec"].get("storageClassName")
    if not name:
        return False
    try:
        found = await client.get(CLASSES, name)
    except ApiError as error:
        if error.not_found:
            return False
        if error.status == 403:
            return True
        raise
    return bool(found.get("volumeBindingMode") == "WaitForFirstConsumer")
