"""How a pod's containers stand when this process takes it over, and what it refuses. Pure."""

from __future__ import annotations

from beamlit_operator.devcluster.controllers.pods import is_finished
from beamlit_operator.devcluster.kubelet.status import ContainerRecord, Role
from beamlit_operator.kube import Json


def first_records(pod: Json) -> list[ContainerRecord]:
    """A record per container.

    | what the API says of the container  | record                                              |
    |-------------------------------------|-----------------------------------------------------|
    | nothing                             | waiting: PodInitializing behind init containers,    |
    |                                     | else ContainerCreating                              |
    | pod has ended                       | as the API says                                     |
    | ran under an earlier process        | ended with 255 ("Unknown"), counted as a restart;   |
    |                                     | stays so with restart policy Never                  |
    | waited, or ended                    | to be started, its count continued                  |
    """
    spec, status = pod["spec"], pod.get("status") or {}
    known = {
        item["name"]: item
        for kind in ("initContainerStatuses", "containerStatuses")
        for item in status.get(kind) or ()
    }
    has_init = bool(spec.get("initContainers"))
    records = []
    for container in spec.get("initContainers") or ():
        role: Role = "sidecar" if container.get("restartPolicy") == "Always" else "init"
        records.append(_record(pod, container, known.get(container["name"]), role=role))
    for container in spec.get("containers") or ():
        record = _record(pod, container, known.get(container["name"]), role="main")
        if has_init and "waiting" in record.state:
            record.state = {"waiting": {"reason": "PodInitializing"}}
        records.append(record)
    return records


def _record(pod: Json, container: Json, known: Json | None, *, role: Role) -> ContainerRecord:
    record = ContainerRecord(container["name"], container.get("image", ""), role)
    if known is None:
        return record
    record.restart_count = known.get("restartCount", 0)
    record.last_state = known.get("lastState") or {}
    state = known.get("state") or {}
    if is_finished(pod):
        record.state, record.ready = state, bool(known.get("ready"))
        record.image_id = known.get("imageID", "")
        record.container_id = known.get("containerID", "")
    elif "running" in state or "terminated" in state:
        ended = state.get("terminated") or {
            "exitCode": 255,
            "reason": "Unknown",
            "message": "the embedded cluster stopped while the container was running",
            "startedAt": state["running"].get("startedAt"),
        }
        if pod["spec"].get("restartPolicy") == "Never" and role != "sidecar":
            record.state = {"terminated": ended}
        else:
            record.last_state = {"terminated": ended}
            record.restart_count += 1
    return record


def refusal(pod: Json) -> str | None:
    """What a pod asks for that local processes cannot give; None when all is fine."""
    spec = pod["spec"]
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            return f"the embedded cluster does not support {name}; remove it, or use a real cluster"
    if (spec.get("os") or {}).get("name") == "windows":
        return "the embedded cluster has no Windows nodes"
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            return f"container {container['name']}: the embedded cluster has no host ports"
        if container.get("volumeDevices"):
            return f"container {container['name']}: the embedded cluster has no block devices"
    if spec.get("ephemeralContainers"):
        return "the embedded cluster does not support ephemeral containers"
    return None
