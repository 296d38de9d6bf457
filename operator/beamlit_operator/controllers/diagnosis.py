"""Why do a revision's pods not start? Read from their statuses, told in one sentence.

Pods that were never made have no status: of those the Deployment tells (:func:`why_refused`).

The first that applies, over the pods by name:

| the pod                                                             | told as                    |
|---------------------------------------------------------------------|----------------------------|
| is being deleted, or is ready                                       | nothing                    |
| PodScheduled is False, Unschedulable                                | the scheduler's message    |
| a container waits for one of :data:`HOPELESS`                       | that, and its last exit    |
| a container ended with a code other than 0, was restarted before,   |                            |
| and the pod was not ready while it ran                              | how it ended               |
| failed as a whole (evicted, ...)                                    | the kubelet's message      |

A container that runs again after a crash still counts until the pod is ready: otherwise the state
would flip with every restart. One that had served until it was killed does not count: it starts
again, and callers wait for it. Messages name no pod and count nothing, so that they stay the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from beamlit_operator.api import labels
from beamlit_operator.controllers.redaction import redacted
from beamlit_operator.kube import Json
from beamlit_operator.workloads.pods import FETCHING

HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""The kubelet's reasons for waiting that do not pass by themselves."""

_NAMED_POD = re.compile(r'\b[Pp]ods? "[^"]+" is (forbidden|invalid)')

CONTAINER = "<container>"

_FETCHER = "beamlit fetch: "
"""How the sentence begins with which fetching ends."""

MAX_TEXT = 600
"""Characters of a container's own words that are told: its last ones say what ended it."""


def ready(pod: Json) -> bool:
    """Whether the pod is ready and not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def fetch_failed(pods: Iterable[Json]) -> bool:
    """Whether a pod could not fetch its model's files, once or again."""
    for pod in pods:
        for container in (pod.get("status") or {}).get("initContainerStatuses") or ():
            states = (container.get("state") or {}, container.get("lastState") or {})
            ends = (state.get("terminated") or {} for state in states)
            if container.get("name") == FETCHING and any(end.get("exitCode") for end in ends):
                return True
    return False


def claim_missing(pods: Iterable[Json]) -> bool:
    """Whether a pod has no node because of a claim: it is gone, going, or not bound."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            waits = condition.get("type") == "PodScheduled" and condition.get("status") == "False"
            if waits and "persistentvolumeclaim" in str(condition.get("message")).lower():
                return True
    return False


def why_not_started(pods: Iterable[Json]) -> str | None:
    """Why no pod of a revision starts; None when one is ready or nothing speaks against it yet."""
    present = sorted(
        (p for p in pods if not p["metadata"].get("deletionTimestamp")),
        key=lambda p: str(p["metadata"]["name"]),
    )
    if any(ready(pod) for pod in present):
        return None
    for pod in present:
        for problem in _problems(pod):
            return problem
    return None


def why_refused(workload: Json | None) -> str | None:
    """The API server's words when it refuses pods that a Deployment is to have: a quota, a
    LimitRange, Pod Security, an admission policy. None when it does not."""
    if workload is None or not (workload.get("spec") or {}).get("replicas", 1):
        return None
    for condition in (workload.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # Each attempt has another name, and the message is to stay the same.
            words = _NAMED_POD.sub(r"pods are \1", _text(condition.get("message")))
            return f"the API server refuses the pods: {words}"
    return None


def _problems(pod: Json) -> Iterator[str]:
    status: Json = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            yield f"no node can take the pod: {_text(condition.get('message'))}"
    where = _logs_hint(pod)
    for group in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(group) or ():
            problem = _container_problem(container, served_until=_served_until(status))
            if problem:
                yield problem + where.replace(CONTAINER, container["name"])
    if status.get("phase") == "Failed":
        told = ": ".join(t for t in (status.get("reason"), _text(status.get("message"))) if t)
        yield f"the pod failed: {told or 'no reason was given'}"


def _served_until(status: Json) -> str:
    """When the pod was last ready; empty if it never was. A condition's transition time moves only
    with its status, so it is the pod's own start until then. Times have whole seconds."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "False":
            since = str(condition.get("lastTransitionTime") or "")
            return since if since > str(status.get("startTime") or "") else ""
    return ""


def _container_problem(container: Json, *, served_until: str) -> str | None:
    name = container.get("name")
    state: Json = container.get("state") or {}
    last: Json = (container.get("lastState") or {}).get("terminated") or {}
    waiting: Json = state.get("waiting") or {}
    if waiting.get("reason") in HOPELESS:
        reason = waiting["reason"]
        if reason == "CrashLoopBackOff" and last:
            return f"container {name} keeps ending: {_exit(last, name)}"
        text = _text(waiting.get("message"))
        return f"container {name} cannot start: {reason}{f': {text}' if text else ''}"
    ended: Json = state.get("terminated") or {}
    restarted = int(container.get("restartCount") or 0) > 0
    for exit_ in (ended, last):
        # Times of one form, so that they compare as text.
        served = served_until >= str(exit_.get("startedAt") or "9")
        if exit_ and exit_.get("exitCode", 0) != 0 and restarted and not served:
            return f"container {name} keeps ending: {_exit(exit_, name)}"
    return None


def _exit(terminated: Json, name: object) -> str:
    words = str(terminated.get("message") or "")
    if name == FETCHING and _FETCHER in words:
        # Its last sentence has all of it: before it there may be lines about how far it was.
        return _text(words.rpartition(_FETCHER)[2])
    text = _text(words)
    reason = terminated.get("reason")
    named = f" ({reason})" if reason and reason not in ("Error", "Completed") else ""
    return f"exit code {terminated.get('exitCode')}{named}{f': {text}' if text else ''}"


def _logs_hint(pod: Json) -> str:
    metadata = pod["metadata"]
    revision = (metadata.get("labels") or {}).get(labels.REVISION)
    if not revision:
        return ""
    namespace = metadata.get("namespace", "")
    return f" (kubectl logs -n {namespace} -l {labels.REVISION}={revision} -c {CONTAINER})"


def _text(value: object) -> str:
    """The end of a container's words, in one line, without what looks like a secret."""
    line = redacted(" ".join(str(value or "").split()))
    return line if len(line) <= MAX_TEXT else "..." + line[-MAX_TEXT:]
