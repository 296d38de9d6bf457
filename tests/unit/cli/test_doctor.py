"""The doctor's checks, over a picture of a healthy installation and over what breaks it."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.cli.doctor.findings import Level, Result, run, verdict
from beamlit_operator.cli.doctor.picture import Answer, Picture, Read, Review, Right
from beamlit_operator.cli.doctor.report import CHECKS, as_json, show
from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
AUTHORITY = new_authority(NOW)


def workload(component: str, ready: int = 2) -> dict[str, Any]:
    marks = {"app.kubernetes.io/component": component}
    return {
        "metadata": {"name": f"beamlit-{component}", "labels": marks},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }


def pod(component: str, image: str = "registry/beamlit:0.1.0", **status: Any) -> dict[str, Any]:
    container = "operator" if component == "operator" else "agent"
    return {
        "metadata": {
            "name": f"beamlit-{component}-1",
            "labels": {"app.kubernetes.io/component": component},
        },
        "spec": {"containers": [{"name": container, "image": image}]},
        "status": status,
    }


def thing(name: str, reason: str = "Ready", status: str = "True", **spec: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "reason": reason, "message": f"why {name}"}
    return {
        "metadata": {"name": name, "namespace": "team"},
        "spec": spec,
        "status": {"conditions": [ready]},
    }


def prefetched(**status: str) -> dict[str, Any]:
    model = thing("chat", "OriginResolved", prefetch=True)
    return {**model, "status": {**model["status"], "prefetch": status}}


def hooks(bundle: bytes = AUTHORITY.certificate) -> list[dict[str, Any]]:
    client = {"caBundle": base64.b64encode(bundle).decode()}
    return [{"webhooks": [{"clientConfig": client, "failurePolicy": "Ignore"}]}]


def shown(*, now: datetime = NOW, by: Any = AUTHORITY) -> Read[bytes]:
    return Read(new_certificate(by, names=["a.svc"], now=now).certificate)


def node(name: str, *, gpus: int = 0, **marks: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": marks},
        "status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": str(gpus)}},
    }


def lease(renewed: datetime) -> Read[list[dict[str, Any]]]:
    stamp = renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Read([{"spec": {"holderIdentity": "operator-1", "renewTime": stamp}}])


def definitions() -> dict[str, Read[list[dict[str, Any]]]]:
    established = {"conditions": [{"type": "Established", "status": "True"}]}
    return {
        f"{kind.plural}.beamlit.com": Read([{**copy.deepcopy(crd(kind)), "status": established}])
        for kind in KINDS
    }


WELL = Picture(
    now=NOW,
    system="beamlit-system",
    cli_version="0.1.0",
    ahead=0.2,
    version=Read({"gitVersion": "v1.33.1"}),
    definitions=definitions(),
    webhooks=Read(hooks()),
    review=Read(Review(refused_by_webhook=True)),
    certificate=shown(),
    guards=Read([]),
    guard_bindings=Read([]),
    rights=Read([Right("operator", "list", "pods", "", True)]),
    workloads=Read([workload("operator"), workload("gateway")]),
    pods=Read([pod("operator"), pod("gateway")]),
    lease=lease(NOW - timedelta(seconds=2)),
    gateway=Read(Answer("http://gateway", 401, True)),
    nodes=Read([node("a", gpus=1, **{"beamlit.com/flavor": "a100"})]),
    catalogue=Read([]),
    runtimes=Read([]),
    models=Read([thing("iris", "OriginResolved")]),
    deployments=Read([thing("iris", "Idle")]),
    environments=Read([thing("production")]),
    policies=Read([]),
)


def examined(**changes: Any) -> list[Result]:
    return run(CHECKS, replace(WELL, **changes))


def without(field: str) -> dict[str, Any]:
    """Definitions of which one lacks a field."""
    found = definitions()
    schema = found["policies.beamlit.com"].known()[0]["spec"]["versions"][0]["schema"]
    del schema["openAPIV3Schema"]["properties"]["spec"]["properties"][field]
    return found


STALLED = thing("iris", "Serving")
STALLED["status"]["conditions"].append(
    {"type": "Stalled", "status": "True", "reason": "RollingOut", "message": "it cannot start"}
)
LOCATION = thing("us", type="location", locations=[{"type": "country", "name": "us"}])
WAITING = {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
OFTEN = {"name": "agent", "restartCount": 7, "lastState": {"terminated": {"reason": "OOMKilled"}}}

BROKEN: list[tuple[str, dict[str, Any], str, Level, str]] = [
    (
        "an old cluster",
        {"version": Read({"gitVersion": "v1.27.3-gke.1"})},
        "kubernetes",
        Level.PROBLEM,
        "older than 1.30",
    ),
    ("a clock ahead", {"ahead": 42.0}, "clocks", Level.WARNING, "42 s ahead of"),
    ("a clock behind", {"ahead": -42.0}, "clocks", Level.WARNING, "42 s behind"),
    (
        "no definition",
        {"definitions": definitions() | {"models.beamlit.com": Read([])}},
        "definitions",
        Level.PROBLEM,
        "no definition of Model",
    ),
    (
        "an older definition",
        {"definitions": without("flavors")},
        "definitions",
        Level.WARNING,
        "lacks `spec.flavors`",
    ),
    (
        "a right that is missing",
        {"rights": Read([Right("gateway", "patch", "deployments/scale", "", False)])},
        "rights",
        Level.PROBLEM,
        "the gateway may not patch deployments/scale",
    ),
    (
        "no gateway",
        {"workloads": Read([workload("operator")])},
        "processes",
        Level.PROBLEM,
        "no Deployment beamlit-gateway",
    ),
    (
        "no operator that is ready",
        {
            "workloads": Read([workload("operator", 0), workload("gateway")]),
            "pods": Read([pod("operator", containerStatuses=[WAITING]), pod("gateway")]),
        },
        "processes",
        Level.PROBLEM,
        "0 of 2 pods of beamlit-operator are ready: beamlit-operator-1: ImagePullBackOff",
    ),
    (
        "one gateway that is not ready",
        {"workloads": Read([workload("operator"), workload("gateway", 1)])},
        "processes",
        Level.WARNING,
        "1 of 2 pods of beamlit-gateway",
    ),
    (
        "a container that ends over and over",
        {"pods": Read([pod("operator"), pod("gateway", containerStatuses=[OFTEN])])},
        "processes",
        Level.WARNING,
        "restarted 7 times, last for OOMKilled",
    ),
    (
        "two versions",
        {"pods": Read([pod("operator", "r/b:0.2.0"), pod("gateway", "r/b:0.1.0")])},
        "versions",
        Level.WARNING,
        "images differ",
    ),
    (
        "another version than this program's",
        {"cli_version": "9.9.9"},
        "versions",
        Level.WARNING,
        "this program is 9.9.9 and the cluster runs 0.1.0",
    ),
    ("no leader", {"lease": Read([])}, "leader", Level.PROBLEM, "no operator leads"),
    (
        "a leader that is gone",
        {"lease": lease(NOW - timedelta(minutes=5))},
        "leader",
        Level.PROBLEM,
        "last renewed 300 s ago",
    ),
    (
        "a leader whose clock is ahead",
        {"lease": lease(NOW + timedelta(minutes=5))},
        "leader",
        Level.WARNING,
        "clock of operator-1 is 300 s ahead",
    ),
    ("no webhook", {"webhooks": Read([])}, "webhook", Level.WARNING, "no Validating"),
    (
        "a webhook that is not asked",
        {"review": Read(Review(passed=True))},
        "webhook",
        Level.PROBLEM,
        "gets no answer",
    ),
    (
        "a webhook that blocks",
        {"review": Read(Review(error="failed calling webhook: timeout"))},
        "webhook",
        Level.PROBLEM,
        "nothing can be written",
    ),
    (
        "no authority",
        {"webhooks": Read(hooks(b""))},
        "certificates",
        Level.PROBLEM,
        "no `caBundle`",
    ),
    (
        "an authority that ended",
        {"webhooks": Read(hooks(new_authority(NOW - timedelta(days=900)).certificate))},
        "certificates",
        Level.PROBLEM,
        "authority in `caBundle` ended",
    ),
    (
        "another authority",
        {"certificate": shown(by=new_authority(NOW))},
        "certificates",
        Level.PROBLEM,
        "not signed by the authority",
    ),
    (
        "a certificate that ended",
        {"certificate": shown(now=NOW - timedelta(days=91))},
        "certificates",
        Level.PROBLEM,
        "certificate ended on 2026-11-22",
    ),
    (
        "a certificate that ends soon",
        {"certificate": shown(now=NOW - timedelta(days=80))},
        "certificates",
        Level.WARNING,
        "was not renewed",
    ),
    (
        "half a pod policy",
        {"guards": Read([{}])},
        "pod policy",
        Level.PROBLEM,
        "its binding beamlit-placement is missing",
    ),
    (
        "somebody else's gateway",
        {"gateway": Read(Answer("http://x", 502, False))},
        "gateway",
        Level.PROBLEM,
        "answers 502",
    ),
    (
        "no authentication",
        {"gateway": Read(Answer("http://x", 404, True))},
        "authentication",
        Level.WARNING,
        "can call every model",
    ),
    (
        "GPUs without a label",
        {"nodes": Read([node("dark", gpus=8)])},
        "nodes",
        Level.WARNING,
        "no known label says their type: dark",
    ),
    (
        "nodes that are nowhere",
        {"policies": Read([LOCATION])},
        "nodes",
        Level.WARNING,
        "no label says where these nodes are: a",
    ),
    ("no nodes", {"nodes": Read([])}, "nodes", Level.PROBLEM, "no node"),
    (
        "a workspace without an Environment",
        {"environments": Read([])},
        "workspaces",
        Level.WARNING,
        "no Environment: team",
    ),
    (
        "a Policy that names nothing",
        {"policies": Read([thing("us", "UnknownName", "False")])},
        "environments",
        Level.PROBLEM,
        "Policy team/us: UnknownName: why us",
    ),
    (
        "an origin that cannot be read",
        {"models": Read([thing("iris", "AccessDenied", "False")])},
        "origins",
        Level.PROBLEM,
        "AccessDenied: why iris",
    ),
    (
        "a Model that nobody looked at",
        {"models": Read([{"metadata": {"name": "new", "namespace": "team"}, "spec": {}}])},
        "origins",
        Level.WARNING,
        "not looked at by any operator: Model team/new",
    ),
    (
        "a prefetch that failed",
        {"models": Read([prefetched(phase="Failed", message="no room", folder="f")])},
        "prefetch",
        Level.PROBLEM,
        "Model team/chat: no room",
    ),
    (
        "a prefetch without a cache",
        {"models": Read([prefetched(phase="Pending", message="no cache is set up")])},
        "prefetch",
        Level.WARNING,
        "Model team/chat: no cache is set up",
    ),
    (
        "a row of a runtime that cannot be used",
        {
            "runtimes": Read(
                [{"metadata": {"name": "ours"}, "data": {"mine": "port: 8080", "tei": "port: 81"}}]
            )
        },
        "runtimes",
        Level.WARNING,
        "ConfigMap ours, key mine: image is missing",
    ),
    (
        "deployments that do not start",
        {"deployments": Read([thing(f"m{n}", "StartFailed", "False") for n in range(9)])},
        "deployments",
        Level.PROBLEM,
        "team/m4 and 4 more: StartFailed: why m0",
    ),
    (
        "a rollout that is held up",
        {"deployments": Read([STALLED])},
        "deployments",
        Level.WARNING,
        "serves, but is held up: RollingOut: it cannot start",
    ),
    (
        "a deployment that nobody looked at",
        {"deployments": Read([{"metadata": {"name": "new", "namespace": "team"}, "spec": {}}])},
        "deployments",
        Level.WARNING,
        "not looked at by any operator: ModelDeployment team/new",
    ),
]


def test_a_healthy_installation_is_well() -> None:
    results = examined()
    assert {f.level for r in results for f in r.findings} == {Level.OK}
    assert [r.check for r in results] == [name for name, _ in CHECKS]
    assert all(r.findings for r in results)


@pytest.mark.parametrize(
    ("changes", "check", "level", "says"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN]
)
def test_what_is_broken_is_found_and_says_what_to_do(
    changes: dict[str, Any], check: str, level: Level, says: str
) -> None:
    found = next(r for r in examined(**changes) if r.check == check)
    bad = [each for each in found.findings if each.level is not Level.OK]
    assert [(each.level, True) for each in bad] == [(level, bool(bad[0].fix))], bad
    assert says in bad[0].message


def test_those_whose_files_can_be_found_are_counted_without_the_others() -> None:
    bad, good = thing("iris", "AccessDenied", "False"), thing("wine", "OriginResolved", "True")
    for models, told in (
        ([bad, good], "1 other Model, of each the files can be found"),
        (
            [good, thing("rose", "OriginResolved", "True")],
            "2 Models, of each the files can be found",
        ),
    ):
        found = next(r for r in examined(models=Read(models)) if r.check == "origins")
        assert [f.message for f in found.findings if f.level is Level.OK] == [told]


def test_a_prefetch_that_goes_on_is_no_trouble() -> None:
    for status in (
        {"phase": "Pending", "message": "waits: 2 other Models are fetched now", "folder": "f"},
        {"phase": "Fetching", "message": "1 of 2 bytes", "folder": "f"},
        {"phase": "Done", "message": "the files are in the cache", "folder": "f"},
    ):
        found = next(
            r for r in examined(models=Read([prefetched(**status)])) if r.check == "prefetch"
        )
        assert [f.message for f in found.findings] == [
            "1 Model with `prefetch`, none of them stuck"
        ]


def test_every_check_but_those_that_only_inform_can_find_something() -> None:
    assert {name for name, _ in CHECKS} == {case[2] for case in BROKEN}


def test_what_may_not_be_read_is_said_and_nothing_fails() -> None:
    why = "you may not read it: nodes is forbidden"
    unread: Read[Any] = Read(why_not=why)
    blind = Picture(
        now=NOW,
        system="beamlit-system",
        cli_version="0.1.0",
        version=unread,
        definitions=dict.fromkeys(definitions(), unread),
        **dict.fromkeys(
            [
                "webhooks",
                "review",
                "certificate",
                "guards",
                "guard_bindings",
                "rights",
                "workloads",
                "pods",
                "lease",
                "gateway",
                "nodes",
                "catalogue",
                "runtimes",
                "models",
                "deployments",
                "environments",
                "policies",
            ],
            unread,
        ),
    )
    results = run(CHECKS, blind)
    levels = {f.level for r in results for f in r.findings}
    assert levels == {Level.UNKNOWN}
    assert all(why in f.message for r in results for f in r.findings)
    # No clock was seen, so nothing can be said of it; all others say why they are silent.
    assert sum(not r.findings for r in results) == 1


def test_a_certificate_that_may_not_be_read_leaves_its_authority_to_be_checked() -> None:
    results = examined(certificate=Read(why_not="you may not read it"))
    found = next(r for r in results if r.check == "certificates")
    assert [each.level for each in found.findings] == [Level.OK, Level.UNKNOWN]


def test_pods_that_end_are_of_no_version() -> None:
    ending = pod("operator", "r/b:0.0.9")
    ending["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    results = examined(pods=Read([ending, pod("operator"), pod("gateway")]))
    assert verdict(results)[Level.WARNING] == 0


def test_what_starts_is_no_trouble() -> None:
    moving = thing("iris", "Starting", "False")
    results = examined(deployments=Read([moving]))
    assert verdict(results)[Level.PROBLEM] == 0
    found = next(r for r in results if r.check == "deployments")
    assert [f.message for f in found.findings] == ["1 ModelDeployment on the way: team/iris"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_screen_shows_every_message_whole_and_a_sum(width: int) -> None:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    results = examined(ahead=42.0, lease=Read([]), nodes=Read(why_not="no"))
    show(console, results)
    text = console.export_text()
    console.file.close()
    squeezed = " ".join(text.split())
    assert "1 problem, 1 warning, 1 check could not be done." in squeezed
    assert "→ Check that an operator is ready" in squeezed
    assert "…" not in text


def test_programs_get_the_same_as_people() -> None:
    told = json.loads(as_json(examined(lease=Read([]))))
    (bad,) = [each for each in told["checks"] if each["level"] != "ok"]
    assert (bad["check"], bad["level"]) == ("leader", "problem")
    assert bad["fix"]
    assert told["counts"]["problem"] == 1
