"""Checks of our own processes: there, ready, of one version, allowed, leading, reachable?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from beamlit_operator.api import labels
from beamlit_operator.cli.doctor.cluster import CLOCKS_AGREE, some
from beamlit_operator.cli.doctor.findings import Finding, ok, problem, warning
from beamlit_operator.cli.doctor.picture import Picture
from beamlit_operator.kube import Json

COMPONENTS = ("operator", "gateway")

LEASE_RESPECTED = 30.0
"""Seconds after which a Lease that was not renewed has no living holder: twice its duration."""

MANY_RESTARTS = 5

BY_THEMSELVES = "the embedded cluster runs operator and gateway as processes of `beamlit dev`"


def processes(picture: Picture) -> Iterator[Finding]:
    """Whether operator and gateway run, all of them, without ending over and over."""
    workloads, pods = picture.workloads.known(), picture.pods.known()
    if picture.embedded and not workloads:
        yield ok(BY_THEMSELVES)
        return
    for component in COMPONENTS:
        name = f"beamlit-{component}"
        found = next((w for w in workloads if w["metadata"]["name"] == name), None)
        if found is None:
            yield problem(
                f"there is no Deployment {name} in {picture.system}",
                "Install the chart, or name the namespace it is in with --system-namespace.",
            )
            continue
        wanted = int((found.get("spec") or {}).get("replicas", 1))
        ready = int((found.get("status") or {}).get("readyReplicas") or 0)
        own = [p for p in pods if _component(p) == component and not _ends(p)]
        why = next((text for p in own if (text := _why_not_ready(p))), "")
        if ready < wanted:
            text = f"{ready} of {wanted} pods of {name} are ready{f': {why}' if why else ''}"
            fix = (
                f"`kubectl describe pods -n {picture.system} -l "
                f"app.kubernetes.io/component={component}` says why; `/readyz` of each in words."
            )
            yield problem(text, fix) if ready == 0 else warning(text, fix)
        else:
            yield ok(f"{name}: {ready} of {wanted} ready")
        yield from _restarts(own)


def _ends(pod: Json) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _component(item: Json) -> str:
    return str((item["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))


def _why_not_ready(pod: Json) -> str:
    status = pod.get("status") or {}
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{pod['metadata']['name']}: {waiting['reason']}"
    for each in status.get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return f"{pod['metadata']['name']}: {each.get('message') or 'not scheduled'}"
    return ""


def _restarts(pods: list[Json]) -> Iterator[Finding]:
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            count = int(container.get("restartCount") or 0)
            if count < MANY_RESTARTS:
                continue
            ended = (container.get("lastState") or {}).get("terminated") or {}
            reason = ended.get("reason") or f"exit code {ended.get('exitCode', 'unknown')}"
            yield warning(
                f"{pod['metadata']['name']}: container {container.get('name')} was restarted "
                f"{count} times, last for {reason}",
                "Raise its memory limit if it was OOMKilled; else `kubectl logs --previous` says "
                "why.",
            )


def versions(picture: Picture) -> Iterator[Finding]:
    """Whether operator, gateway and this program are of one version."""
    if picture.embedded and not picture.workloads.known():
        return
    images: defaultdict[str, set[str]] = defaultdict(set)
    for pod in picture.pods.known():
        if (component := _component(pod)) in COMPONENTS and not _ends(pod):
            for container in (pod.get("spec") or {}).get("containers") or ():
                if container.get("name") in ("operator", "agent"):
                    images[str(container.get("image"))].add(component)
    if not images:
        return
    if len(images) > 1:
        told = "; ".join(f"{', '.join(sorted(who))}: {image}" for image, who in images.items())
        yield warning(
            f"images differ: {told}",
            "Wait for the rollout to end. If it has, upgrade the release: all are made to work "
            "together in one version only.",
        )
        return
    (image,) = images
    tag = image.partition("@")[0].rpartition(":")[2]
    if tag[:1].isdigit() and tag != picture.cli_version:
        yield warning(
            f"this program is {picture.cli_version} and the cluster runs {tag}",
            "Install the program of the cluster's version: what it explains may differ.",
        )
    else:
        yield ok(f"all run {image}")


def leader(picture: Picture) -> Iterator[Finding]:
    """Whether one operator leads."""
    found = picture.lease.known()
    holder = str((found[0].get("spec") or {}).get("holderIdentity") or "") if found else ""
    if picture.embedded and not holder:
        yield ok("one operator, which needs no Lease")
        return
    if not holder:
        yield problem(
            "no operator leads: nothing is reconciled, and nothing scales down",
            "Check that an operator is ready and may write Leases (see rights).",
        )
        return
    renewed = _time((found[0].get("spec") or {}).get("renewTime"))
    server = picture.now - timedelta(seconds=picture.ahead or 0.0)
    age = (server - renewed).total_seconds() if renewed is not None else 0.0
    if age > LEASE_RESPECTED:
        yield problem(
            f"the Lease of {holder} was last renewed {age:.0f} s ago",
            "No operator runs, or its clock is behind. Look at its pods; a standby takes over "
            "after 15 s by itself.",
        )
    elif age < -CLOCKS_AGREE:
        yield warning(
            f"the clock of {holder} is {-age:.0f} s ahead of the API server's",
            "Let a time service set the clocks of the nodes. The election does not depend on them, "
            "conditions' times and certificates do.",
        )
    else:
        yield ok(f"{holder} leads")


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def rights(picture: Picture) -> Iterator[Finding]:
    """Whether operator and gateway may do all that they do."""
    found = picture.rights.known()
    lacking: defaultdict[str, list[str]] = defaultdict(list)
    for each in found:
        if not each.allowed:
            where = f" in {each.namespace}" if each.namespace else ""
            lacking[each.component].append(f"{each.verb} {each.resource}{where}")
    for component, what in lacking.items():
        yield problem(
            f"the {component} may not {some(what)}",
            f"Apply the roles of this version: manifests/rbac/{component}.yaml, or the chart.",
        )
    if not lacking:
        yield ok(f"the ServiceAccounts have all {len(found)} rights that this version needs")


def gateway(picture: Picture) -> Iterator[Finding]:
    """Whether callers reach the gateway."""
    answer = picture.gateway.known()
    if not answer.ours:
        yield problem(
            f"{answer.url} answers {answer.status}, and not as our gateway does",
            "Something else is at that address, or stands in front and fails. --gateway names "
            "another; `--gateway-url` of the operator is what `status.url` begins with.",
        )
    else:
        yield ok(f"{answer.url} answers")


def authentication(picture: Picture) -> Iterator[Finding]:
    """Whether callers have to say who they are."""
    answer = picture.gateway.known()
    if not answer.ours:
        return
    if answer.status == 401:
        yield ok("on: a request without a token is answered 401")
    elif picture.embedded:
        yield ok("off, as is usual on the embedded cluster; only this machine reaches it")
    else:
        yield warning(
            "off: whoever reaches the gateway can call every model",
            "Set `gateway.authentication.enabled`, or keep the gateway where only those reach it "
            "who may call all of it.",
        )


def is_ours(item: Json) -> bool:
    """Whether a Deployment or a pod is part of the platform."""
    marks = item["metadata"].get("labels") or {}
    return _component(item) in COMPONENTS and marks.get(labels.PART_OF, "beamlit") == "beamlit"
