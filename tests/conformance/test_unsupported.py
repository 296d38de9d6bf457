"""What the embedded cluster does not do, and how it says so: it refuses and never pretends."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamlit_operator.kube import ApiError, HttpClient, Json

from .workloads import Workspace, main_status

POD = "/api/v1/namespaces/default/pods/x"
ABSENT = "the server could not find the requested resource"
NO_GROUP = "404 page not found"
OURS = "the embedded cluster does not implement"

REFUSED: list[tuple[str, str, int, str]] = [
    # Ways into a pod other than its log and its address.
    ("POST", f"{POD}/exec", 501, OURS),
    ("POST", f"{POD}/attach", 501, OURS),
    ("POST", f"{POD}/portforward", 501, OURS),
    ("GET", f"{POD}/proxy", 501, OURS),
    ("GET", "/api/v1/namespaces/default/services/x/proxy", 501, OURS),
    ("GET", "/api/v1/nodes/x/proxy", 501, OURS),
    ("PATCH", f"{POD}/ephemeralcontainers", 501, OURS),
    ("PATCH", f"{POD}/resize", 501, OURS),
    # Workloads other than Deployments, ReplicaSets and pods.
    ("GET", "/apis/apps/v1/statefulsets", 404, ABSENT),
    ("GET", "/apis/apps/v1/daemonsets", 404, ABSENT),
    ("GET", "/apis/batch/v1/jobs", 404, NO_GROUP),
    ("GET", "/apis/batch/v1/cronjobs", 404, NO_GROUP),
    # Extension points that are not admission webhooks or custom resources.
    ("GET", "/apis/apiregistration.k8s.io/v1/apiservices", 404, NO_GROUP),
    ("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests", 404, NO_GROUP),
    ("GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", 404, NO_GROUP),
    ("GET", "/apis/resource.k8s.io/v1/resourceclaims", 404, NO_GROUP),
    # Verbs that a resource does not have.
    ("PUT", "/api/v1/namespaces/default/configmaps", 405, "PUT on "),
    ("POST", "/api/v1/namespaces/default/configmaps/x", 405, "POST on "),
    ("DELETE", "/apis/apps/v1/namespaces/default/deployments/x/status", 405, "DELETE on "),
]

UNKNOWN_VOLUME = "the embedded cluster has no csi volumes; it has "
UNPLACED: list[tuple[Json, str]] = [
    (
        {
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname"}
                    ]
                }
            }
        },
        "the embedded cluster does not support required podAntiAffinity",
    ),
    (
        {
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                }
            ]
        },
        "the embedded cluster does not support topologySpreadConstraints that must hold",
    ),
]


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


@pytest.fixture(autouse=True)
def only_embedded(embedded: bool) -> None:
    if not embedded:
        pytest.skip("a real cluster does these")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"), REFUSED, ids=[f"{m} {p}" for m, p, _, _ in REFUSED]
)
async def test_a_request_for_what_is_not_there_is_refused(
    client: HttpClient, method: str, path: str, status: int, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await client.request(method, path, body={})
    assert (caught.value.status, message in caught.value.message) == (status, True), caught.value


@pytest.mark.parametrize(("spec", "message"), UNPLACED, ids=["anti-affinity", "spread"])
async def test_a_pod_that_needs_what_the_scheduler_cannot_do_waits_and_says_so(
    workspace: Workspace, spec: Json, message: str
) -> None:
    await workspace.start(workspace.pod("one", **spec))

    async def refused() -> bool:
        conditions = (await workspace.get("one"))["status"].get("conditions") or ()
        return any(message in c.get("message", "") for c in conditions)

    await workspace.until(refused)


async def test_a_volume_of_an_unknown_kind_is_named(workspace: Workspace) -> None:
    volume = {"name": "data", "csi": {"driver": "example.com"}}
    await workspace.start(workspace.pod("one", volumes=[volume]))

    async def told() -> bool:
        state = main_status(await workspace.get("one")).get("state", {}).get("waiting", {})
        return UNKNOWN_VOLUME in state.get("message", "")

    await workspace.until(told)


async def test_an_image_that_stands_for_no_program_says_how_to_map_it(
    workspace: Workspace,
) -> None:
    workspace.image = "nginx:1.29"
    await workspace.start(workspace.pod("one"))

    async def refused() -> str:
        state = main_status(await workspace.get("one")).get("state", {}).get("waiting", {})
        return str(state.get("message", "")) if "ImagePull" in state.get("reason", "") else ""

    assert "--images" in await workspace.until(refused)
