"""A kind cluster with our images, a store that its pods reach, and the site that scenarios want.

Everything here runs where a Docker engine answers (`make e2e`) and is skipped elsewhere, and where
several workers would each make a cluster (`make test`). What the tests do is in
`tests/support/scenarios.py`, which runs on the embedded cluster too.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support import previous
from tests.support.chart import SYSTEM, Values, merged
from tests.support.release import Release
from tests.support.site import Site, restricted
from tests.support.stack import ACCESS_KEY, ROOT, SECRET_KEY, SERVER

from beamlit_operator.kube import NAMESPACES, NODES, SERVICES, HttpClient, connect

REGISTRY, REPOSITORY = "docker.io", "beamlit/e2e"
CURRENT, BEFORE = "current", "before"
MODEL_IMAGE = "docker.io/library/python:3.13-slim"


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


HAS_DOCKER = docker_answers()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        if not HAS_DOCKER:
            reason = "no Docker engine answers: kind needs one"
            item.add_marker(pytest.mark.skip(reason=reason))
        elif int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
            reason = "these share one kind cluster, in their order: `make e2e` runs them"
            item.add_marker(pytest.mark.skip(reason=reason))


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"docker {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def values(tag: str) -> Values:
    """The images of this machine, and a Service that it reaches."""
    image = {
        "registry": REGISTRY,
        "repository": REPOSITORY,
        "tag": tag,
        "pullPolicy": "Never",
    }
    service = {"type": "NodePort"}
    return {"image": image, "gateway": {"service": service, "authenticatedElsewhere": True}}


@pytest.fixture(scope="session")
def helm() -> Any:
    return pytest.importorskip(
        "helm_sdkpy", reason="helm-sdkpy, Helm's engine as a package, needs Python 3.12 or later"
    )


@pytest.fixture(scope="session")
def cluster(kind_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cluster, with this version's image and the one before it on its node."""
    current, before = (f"{REPOSITORY}:{tag}" for tag in (CURRENT, BEFORE))
    docker("build", "--tag", current, str(ROOT))
    # What is not in the code of the version before is what it runs on: the locked packages.
    folder = tmp_path_factory.mktemp("before")
    previous.unpacked(folder / "code")
    lines = (f"FROM {current}", "COPY code /before", "ENV PYTHONPATH=/before")
    (folder / "Dockerfile").write_text("\n".join(lines))
    docker("build", "--tag", before, str(folder))
    for image in (current, before):
        kind_cluster.load_docker_image(image)
    asyncio.run(_prepare(kind_cluster.kubeconfig_path))
    return kind_cluster


async def _prepare(kubeconfig: Path) -> None:
    """Says where the node is, as a cloud would, and holds pods to `restricted`."""
    async with await connect(kubeconfig) as client:
        labels = {"topology.kubernetes.io/region": "us-east-1"}
        for node in (await client.list(NODES)).items:
            await client.merge_patch(
                NODES, node["metadata"]["name"], {"metadata": {"labels": labels}}
            )
        known = (await client.list(NAMESPACES)).items
        if SYSTEM not in {each["metadata"]["name"] for each in known}:
            await client.create(NAMESPACES, restricted(SYSTEM))


@pytest.fixture(scope="session")
def store(cluster: Any) -> Iterator[str]:
    """An S3 store on this machine, at the address by which the cluster's pods reach it."""
    found = json.loads(docker("network", "inspect", "kind"))
    gateways = [each.get("Gateway", "") for each in found[0]["IPAM"]["Config"]]
    (address,) = [each for each in gateways if "." in each]
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        s3 = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        s3.create_bucket(Bucket="models")
        s3.upload_file(str(SERVER), "models", "tiny/server.py")
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def release(helm: Any, cluster: Any) -> Release:
    """The release, which is not installed yet."""
    return Release(helm, cluster.kubeconfig_path, values=values(CURRENT))


async def node_port(client: HttpClient) -> str:
    """Where this machine reaches the gateways' Service: any node's address."""
    service = await client.get(SERVICES, "beamlit-gateway", SYSTEM)
    (port,) = [each["nodePort"] for each in service["spec"]["ports"] if each["name"] == "http"]
    node = (await client.list(NODES)).items[0]
    addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
    return f"http://{addresses['InternalIP']}:{port}"


SiteOn = Callable[[], AbstractAsyncContextManager[Site]]


@pytest.fixture
def site_on(cluster: Any, release: Release, store: str) -> SiteOn:
    """Makes a site of the release, once that is installed."""

    def logs() -> str:
        flags = ("--all-containers", "--prefix", "--tail=60", "--selector")
        ours = "app.kubernetes.io/name=beamlit-operator"
        return str(cluster.kubectl("logs", "-n", SYSTEM, *flags, ours))

    @asynccontextmanager
    async def made() -> AsyncIterator[Site]:
        async with await connect(cluster.kubeconfig_path) as client:
            url = await node_port(client)
            yield Site(client, release, lambda: url, store, logs, image=MODEL_IMAGE)

    return made


def before() -> Values:
    """The values of the version before this one."""
    return merged(values(BEFORE), {"gateway": {"authenticatedElsewhere": True}})
