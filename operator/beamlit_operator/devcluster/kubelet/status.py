"""The status of a pod, from what its containers are doing. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from beamlit_operator.devcluster.controllers.pods import condition
from beamlit_operator.devcluster.timestamps import written
from beamlit_operator.kube import Json

Role = Literal["init", "sidecar", "main"]

OWNED = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
"""Conditions the kubelet writes; others' (readiness gates) are left as they are."""


@dataclass(slots=True)
class ContainerRecord:
    """What is known about one container; its states are as the API writes them."""

    name: str
    image: str
    role: Role = "main"
    state: Json = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Json = field(default_factory=dict)
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    image_id: str = ""
    container_id: str = ""

    @property
    def exit_code(self) -> int | None:
        """Of the end it is in now, None while it has not ended."""
        found = self.state.get("terminated")
        return None if found is None else int(found["exitCode"])

    def as_json(self) -> Json:
        """The ContainerStatus."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            **({"containerID": self.container_id} if self.container_id else {}),
            "state": self.state,
            "lastState": self.last_state,
            "restartCount": self.restart_count,
            "ready": self.ready,
            "started": self.started,
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status is made from."""

    pod: Json
    records: Sequence[ContainerRecord]
    pod_ip: str | None
    host_ip: str
    started_at: datetime
    now: datetime
    ended: tuple[str, str] | None = None
    """Reason and message when the kubelet itself ended the pod (deadline exceeded)."""


def status_of(facts: Facts) -> Json:
    """The whole status the kubelet owns."""
    phase = phase_of(facts)
    init = [r for r in facts.records if r.role != "main"]
    main = [r for r in facts.records if r.role == "main"]
    status: Json = {
        "phase": phase,
        "conditions": _conditions(facts, phase, init, main),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": written(facts.started_at),
        "containerStatuses": [record.as_json() for record in main],
        "qosClass": qos_class(facts.pod),
        "observedGeneration": facts.pod["metadata"].get("generation", 0),
    }
    if init:
        status["initContainerStatuses"] = [record.as_json() for record in init]
    if facts.pod_ip:
        status["podIP"] = facts.pod_ip
        status["podIPs"] = [{"ip": facts.pod_ip}]
    if facts.ended is not None:
        status["reason"], status["message"] = facts.ended
    return status


def phase_of(facts: Facts) -> str:
    """The phase.

    | containers                                                     | phase     |
    |----------------------------------------------------------------|-----------|
    | kubelet ended the pod                                          | Failed    |
    | an init container failed and is not restarted                  | Failed    |
    | init containers not done, or a main one has never started      | Pending   |
    | any running (sidecars too), or waiting to be restarted         | Running   |
    | all ended, policy Always                                       | Running   |
    | all ended with code 0                                          | Succeeded |
    | all ended, not all with 0, policy Never                        | Failed    |
    | all ended, not all with 0, policy OnFailure                    | Running   |
    """
    if facts.ended is not None:
        return "Failed"
    policy = facts.pod["spec"].get("restartPolicy", "Always")
    inits = [r for r in facts.records if r.role == "init"]
    mains = [r for r in facts.records if r.role == "main"]
    if policy == "Never" and any(r.exit_code for r in inits):
        return "Failed"
    if any(r.exit_code != 0 for r in inits):
        return "Pending"
    if any("waiting" in r.state and not r.last_state for r in mains):
        return "Pending"
    codes = [r.exit_code for r in mains]
    sidecar_runs = any(r.role == "sidecar" and "running" in r.state for r in facts.records)
    if any(code is None for code in codes) or sidecar_runs or policy == "Always":
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def qos_class(pod: Json) -> str:
    """Guaranteed, Burstable or BestEffort, by requests and limits of CPU and memory."""
    containers = [
        *(pod["spec"].get("containers") or ()),
        *(pod["spec"].get("initContainers") or ()),
    ]
    resources = [container.get("resources") or {} for container in containers]

    def only(amounts: Json | None) -> Json:
        return {k: v for k, v in (amounts or {}).items() if k in ("cpu", "memory")}

    if not any(only(r.get("requests")) or only(r.get("limits")) for r in resources):
        return "BestEffort"
    guaranteed = all(
        len(only(r.get("limits"))) == 2
        and only(r.get("requests") or r.get("limits")) == only(r.get("limits"))
        for r in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _conditions(
    facts: Facts,
    phase: str,
    init: Sequence[ContainerRecord],
    main: Sequence[ContainerRecord],
) -> list[Json]:
    pending = [r.name for r in init if (r.exit_code != 0 if r.role == "init" else not r.started)]
    unready = [r.name for r in main if not r.ready]
    unready += [r.name for r in init if r.role == "sidecar" and not r.ready]
    gates = [gate["conditionType"] for gate in facts.pod["spec"].get("readinessGates") or ()]
    closed = [gate for gate in gates if condition(facts.pod, gate).get("status") != "True"]
    result: list[Json] = [{"type": "PodScheduled", "status": "True"}]
    if phase == "Succeeded":
        done = {"status": "False", "reason": "PodCompleted"}
        result.append({"type": "Initialized", "status": "True", "reason": "PodCompleted"})
        result += [{"type": kind, **done} for kind in ("ContainersReady", "Ready")]
    elif phase == "Failed":
        done = {"status": "False", "reason": "PodFailed"}
        result.append({"type": "Initialized", "status": "False" if pending else "True"})
        result += [{"type": kind, **done} for kind in ("ContainersReady", "Ready")]
    else:
        result.append(
            _holds(
                "Initialized",
                pending,
                "ContainersNotInitialized",
                "containers with incomplete status: [{}]",
            )
        )
        text = "containers with unready status: [{}]"
        result.append(_holds("ContainersReady", unready, "ContainersNotReady", text))
        if unready or not closed:
            result.append(_holds("Ready", unready, "ContainersNotReady", text))
        else:
            text = "the status of pod readiness gates [{}] is not True"
            result.append(_holds("Ready", closed, "ReadinessGatesNotReady", text))
    others = [
        item
        for item in (facts.pod.get("status") or {}).get("conditions") or ()
        if item.get("type") not in OWNED
    ]
    return others + [_stamped(item, facts) for item in result]


def _holds(type: str, failing: Sequence[str], reason: str, message: str) -> Json:
    if not failing:
        return {"type": type, "status": "True"}
    text = message.format(" ".join(failing))
    return {"type": type, "status": "False", "reason": reason, "message": text}


def _stamped(item: Json, facts: Facts) -> Json:
    known = condition(facts.pod, item["type"])
    same = known.get("status") == item["status"]
    since = known.get("lastTransitionTime") if same else None
    return {**item, "lastTransitionTime": since or written(facts.now)}
