"""What the suite runs against: the embedded API server, or any cluster given by --kubeconfig.

The tests know nothing but the kubeconfig; each gets a namespace of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    ApiError,
    HttpClient,
    Json,
    Resource,
    connect,
)

from .workloads import Workspace, ready_nodes

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
WIDGETS = Resource("conformance.beamlit.com", "v1", "widgets", "Widget")


def pytest_addoption(parser: pytest.Parser) -> None:
    # pytest-kind, where installed, has an option of this name with the same meaning.
    with contextlib.suppress(ValueError):
        parser.addoption(
            "--kubeconfig",
            default=None,
            help="run the conformance suite against this cluster instead of the embedded one",
        )
    parser.addoption(
        "--test-image",
        default=None,
        help="image of the conformance suite's pods; its PATH must have a python "
        "(default: python:3-slim; the embedded cluster has its own)",
    )
    parser.addoption(
        "--kubectl",
        action="append",
        default=[],
        help="one more kubectl that the conformance suite drives the cluster with (repeatable)",
    )


@pytest.fixture(scope="session")
def kubeconfig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    given = request.config.getoption("--kubeconfig")
    if given:
        yield Path(given)
        return
    from beamlit_operator.devcluster.apiserver import ApiServer

    home = tmp_path_factory.mktemp("apiserver")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="apiserver")
    thread.start()
    server = ApiServer(home)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(120)
    try:
        yield server.kubeconfig(home / "kubeconfig")
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(120)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@pytest.fixture(scope="session")
def cluster_kubeconfig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A cluster that runs pods: the embedded one as its users start it, in a process of its own.

    A module whose tests need one gives this as its ``kubeconfig``.
    """
    given = request.config.getoption("--kubeconfig")
    if given:
        yield Path(given)
        return
    home = tmp_path_factory.mktemp("cluster")
    command = [sys.executable, "-m", "beamlit_operator.devcluster", "--data-dir", str(home)]
    command += ["--autoscaler-sync", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready:"), f"the embedded cluster did not start: {line!r}"
            yield home / "kubeconfig"
        finally:
            process.terminate()
            process.wait(90)


@pytest.fixture(scope="session")
def test_image(request: pytest.FixtureRequest, embedded: bool) -> str:
    """An image with a ``python`` on its PATH."""
    given = request.config.getoption("--test-image")
    return str(given or ("beamlit.dev/python:3" if embedded else "python:3-slim"))


@pytest.fixture(scope="session")
def embedded(request: pytest.FixtureRequest) -> bool:
    """Whether this runs against the embedded server."""
    return request.config.getoption("--kubeconfig") is None


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[HttpClient]:
    async with await connect(kubeconfig) as found:
        yield found


@pytest.fixture
async def namespace(client: HttpClient) -> AsyncIterator[str]:
    created = await client.create(NAMESPACES, {"metadata": {"generateName": "conformance-"}})
    name = created["metadata"]["name"]
    yield name
    with contextlib.suppress(ApiError):
        await client.delete(NAMESPACES, name)


@pytest.fixture
async def workspace(client: HttpClient, namespace: str, test_image: str) -> Workspace:
    """A namespace where pods run."""
    if not await ready_nodes(client):
        pytest.skip("this control plane has no node that runs pods")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(ApiError):
                await client.get(SERVICE_ACCOUNTS, "default", namespace)
                return Workspace(client, namespace, test_image)
            await asyncio.sleep(0.05)


Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@pytest.fixture
def eventually() -> Eventually:
    """Calls until the answer is truthy; fails with the last one after 60 seconds."""

    async def wait(probe: Callable[[], Awaitable[Any]]) -> Any:
        seen: Any = None
        try:
            async with asyncio.timeout(60):
                while not (seen := await probe()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"still not true after 60 s, last seen: {seen!r}")
        return seen

    return wait


def widget_definition() -> Json:
    part = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "count": {"type": "integer", "default": 7},
        },
    }
    spec = {
        "type": "object",
        "required": ["size"],
        "x-kubernetes-validations": [
            {"rule": "self.size < 100 || has(self.big)", "message": "large ones must be big"},
            {
                "rule": "self.color == oldSelf.color",
                "message": "color is immutable",
                "fieldPath": ".color",
                "reason": "FieldValueForbidden",
            },
            {
                "rule": "!has(self.name) || self.name == self.name.lowerAscii()",
                "messageExpression": "'name ' + self.name + ' must be lower case'",
            },
        ],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
            "big": {"type": "boolean"},
            "name": {
                "type": "string",
                "maxLength": 10,
                "x-kubernetes-validations": [
                    {"rule": "!self.contains('_')", "message": "write it without underscores"}
                ],
            },
            "replicas": {"type": "integer", "default": 1},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "port": {"x-kubernetes-int-or-string": True},
            "note": {"type": "string", "nullable": True},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "tags": {
                "type": "array",
                "x-kubernetes-list-type": "set",
                "items": {"type": "string"},
            },
            "args": {"type": "array", "items": {"type": "string"}},
            "parts": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": part,
            },
        },
    }
    status = {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer"},
            "selector": {"type": "string"},
            "message": {"type": "string"},
        },
    }
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.conformance.beamlit.com"},
        "spec": {
            "group": "conformance.beamlit.com",
            "scope": "Namespaced",
            "names": {
                "plural": "widgets",
                "singular": "widget",
                "kind": "Widget",
                "shortNames": ["wdg"],
                "categories": ["conformance"],
            },
            "versions": [
                {"name": "v1", **version},
                {"name": "v1beta1", **version, "storage": False},
            ],
        },
    }


async def install(client: HttpClient, definition: Json) -> None:
    """Creates (or replaces) the definition and waits until it is served."""
    name = definition["metadata"]["name"]
    await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition, field_manager="conformance")
    async with asyncio.timeout(60):
        while True:
            found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
            conditions = found.get("status", {}).get("conditions") or ()
            states = {c["type"]: c["status"] for c in conditions}
            if states.get("Established") == states.get("NamesAccepted") == "True":
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def widgets(client: HttpClient) -> Resource:
    """The Widget resource, served."""
    await install(client, widget_definition())
    return WIDGETS


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kubectl(kubectl_of: Callable[[str], Any]) -> Callable[..., Awaitable[Any]]:
    """Runs kubectl in the test's namespace; ``check=False`` returns failures too."""
    packaged = str(Path(sys.executable).with_name("kubectl"))
    program = shutil.which("kubectl") or shutil.which(packaged)
    if program is None:
        pytest.skip("kubectl is not on the PATH")
    return kubectl_of(program)


@pytest.fixture
def kubectl_of(kubeconfig: Path, namespace: str, tmp_path: Path) -> Callable[[str], Any]:
    """The same for a given kubectl."""
    return lambda program: _kubectl(program, kubeconfig, namespace, tmp_path)


def _kubectl(
    program: str, kubeconfig: Path, namespace: str, tmp_path: Path
) -> Callable[..., Awaitable[Any]]:
    async def run(*arguments: str, stdin: str = "", check: bool = True) -> Any:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}",
            f"--cache-dir={tmp_path}",
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 90)
        result = subprocess.CompletedProcess(
            arguments, process.returncode or 0, out.decode(), err.decode()
        )
        if check:
            assert result.returncode == 0, f"kubectl {arguments}: {result.stdout}{result.stderr}"
        return result

    return run
