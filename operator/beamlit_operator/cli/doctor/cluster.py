"""Checks of the cluster itself: its version, its clock, its definitions of our kinds, its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from beamlit_operator.api.definitions import NAMES, compare, known
from beamlit_operator.cli.doctor.findings import Finding, ok, problem, warning
from beamlit_operator.cli.doctor.picture import Picture
from beamlit_operator.kube import Json
from beamlit_operator.policy import Catalogue, built_in
from beamlit_operator.policy.extending import extended
from beamlit_operator.policy.nodes import node_flavors, node_location

OLDEST = (1, 30)
"""The oldest Kubernetes that the chart installs on: ValidatingAdmissionPolicy, sidecars."""

CLOCKS_AGREE = 5.0
"""Seconds by which clocks may differ without anybody noticing."""

NAMED = 5
"""Objects that a finding names before it counts the others."""


def kubernetes(picture: Picture) -> Iterator[Finding]:
    """The version of the cluster."""
    told = picture.version.known()
    version = str(told.get("gitVersion") or "of an unknown version")
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        yield problem(
            f"Kubernetes {version} is older than {'.'.join(map(str, OLDEST))}",
            "Upgrade the cluster.",
        )
    else:
        what = " (the embedded cluster: never for production)" if picture.embedded else ""
        yield ok(f"{version}{what}")


def clocks(picture: Picture) -> Iterator[Finding]:
    """Whether this machine, the API server and the operator agree on the time."""
    ahead = picture.ahead
    if ahead is None:
        return
    if abs(ahead) > CLOCKS_AGREE:
        yield warning(
            f"the clock of this machine is {_off(ahead)} the API server's",
            "Let a time service set the clocks of both. Tokens and certificates seem expired or "
            "not yet valid where clocks differ by more.",
        )
    else:
        yield ok("this machine and the API server agree on the time")


def _off(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def definitions(picture: Picture) -> Iterator[Finding]:
    """Whether the four kinds are there, served, and those of this version."""
    wanted, same = known(), 0
    for name, kind in NAMES.items():
        found = picture.definitions[name].known()
        if not found:
            yield problem(
                f"there is no definition of {kind} ({name})",
                "Install them: `kubectl apply --server-side -f crds/`, or the chart with "
                "`crds.enabled`.",
            )
            continue
        difference = compare(name, found[0], wanted[name])
        same += difference.equal
        for sentence in difference.sentences():
            text, _, fix = sentence.rpartition("; " if difference.served else ": ")
            advice = f"{fix[:1].upper()}{fix[1:]}."
            yield (warning if difference.served else problem)(text, advice)
        if not _established(found[0]):
            yield problem(
                f"the definition of {kind} is not established",
                f"`kubectl describe crd {name}` says why.",
            )
    if same == len(NAMES):
        yield ok(f"{same} kinds, with the fields of this version ({picture.cli_version})")


def _established(definition: Json) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def nodes(picture: Picture) -> Iterator[Finding]:
    """Whether policies can see where nodes are and what GPUs they have."""
    found = picture.nodes.known()
    catalogue = _catalogue(picture)
    blind = [name for name, marks, gpus in map(_node, found) if gpus and not _gpu(marks, catalogue)]
    if blind:
        yield warning(
            f"GPUs that no flavor policy sees, since no known label says their type: {some(blind)}",
            "Run NVIDIA's GPU feature discovery, or set `beamlit.com/flavor` on the nodes, such as "
            "`kubectl label node NODE beamlit.com/flavor=a100`.",
        )
    if any(_is_location(each) for each in picture.policies.value or ()):
        lost = [
            name
            for name, marks, _ in map(_node, found)
            if node_location(marks, catalogue=catalogue).value is None
        ]
        if lost:
            yield warning(
                f"there are location policies, and no label says where these nodes are: "
                f"{some(lost)}",
                "Set `topology.kubernetes.io/region` or `beamlit.com/location` on them; nothing "
                "that a location policy binds runs there.",
            )
    if not found:
        yield problem("there is no node", "Add one: nothing can run.")
    elif not blind:
        with_gpus = sum(bool(gpus) for _, _, gpus in map(_node, found))
        yield ok(f"{len(found)} nodes, {with_gpus} with GPUs of a known type")


def _catalogue(picture: Picture) -> Catalogue:
    for config in picture.catalogue.value or ():
        return extended(config.get("data") or {}).catalogue
    return built_in()


def _node(node: Json) -> tuple[str, dict[str, str], bool]:
    marks = node["metadata"].get("labels") or {}
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    gpus = any(
        name.endswith("/gpu") and str(count) not in ("", "0") for name, count in allocatable.items()
    )
    return node["metadata"]["name"], marks, gpus


def _gpu(marks: dict[str, str], catalogue: Catalogue) -> bool:
    return any(flavor.kind == "gpu" for flavor in node_flavors(marks, catalogue=catalogue))


def _is_location(policy: Json) -> bool:
    return (policy.get("spec") or {}).get("type") == "location"


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    shown = ", ".join(sorted(names)[:NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
