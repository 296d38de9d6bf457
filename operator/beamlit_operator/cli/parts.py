"""The parts of a cluster on this machine: started, waited for and ended together.

The API server with its controllers, the gateway and the operator are a process each, as in a real
cluster; with the samples, an S3 store is one more.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.ports import LOOPBACK, free_port, free_ports, require_free, until_answers
from beamlit_operator.cli.processes import Program, Supervisor
from beamlit_operator.cli.shipped import read_crds, read_roles
from beamlit_operator.controllers.admission.configuration import (
    CONFIGURATIONS,
    by_url,
    configuration,
)
from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    Json,
    KubeClient,
    Resource,
)

OPERATOR_NAMESPACE = "beamlit-system"
NAMESPACES_TO_MAKE = ("default", OPERATOR_NAMESPACE)
FIELD_MANAGER = "beamlit-dev"

REVIVED = ("gateway", "operator")
"""The parts that a real cluster would start again when they end; what they know they read anew."""

START_TIMEOUT = 60.0
"""Seconds one part may take until it can be used; a slow laptop needs about five."""

STORE_PORT = 9900
"""The address of the sample store stands in the sample manifests, so it is fixed."""


@dataclass(frozen=True, slots=True)
class DevSettings:
    """What to run and where."""

    data_dir: Path
    api_port: int = 0
    """0: any free one."""
    gateway_port: int = 8080
    """The next free one is taken if it is in use."""
    samples: bool = False
    """Whether to run the S3 store with the sample models."""
    authentication: bool = False
    """Whether callers need a token and a right. Then the API server asks RBAC as well."""
    cache_claim: str = ""
    """The claim in which the files of a workspace's models are shared, where there is one."""


@dataclass(frozen=True, slots=True)
class DevCluster:
    """What runs, for whoever wants to use it."""

    kubeconfig: Path
    gateway: str
    """The start of every endpoint's URL."""
    store: str | None
    """The address of the sample store, if it runs."""
    samples: tuple[Json, ...]
    """What `samples.Sample` says of each model in it."""
    logs: Path
    seconds: float
    """From the start until all of it could be used."""


Report = Callable[[str], None]


@asynccontextmanager
async def dev_cluster(
    settings: DevSettings, supervisor: Supervisor, *, report: Report
) -> AsyncIterator[DevCluster]:
    """Starts everything; ends everything on the way out.

    Raises:
        ProgramDiedError: a part ended while it was waited for.
        CommandError: something else is in the way; says what.
    """
    started = time.monotonic()
    try:
        yield await supervisor.while_running(
            _start(settings, supervisor, report=report, started=started)
        )
    finally:
        report("stopping")
        await supervisor.stop()


async def _start(
    settings: DevSettings, supervisor: Supervisor, *, report: Report, started: float
) -> DevCluster:
    folder = settings.data_dir.absolute()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.unlink(missing_ok=True)
    report("starting the API server, controllers, scheduler and kubelet")
    command = [sys.executable, "-m", "beamlit_operator.devcluster", "--data-dir", str(folder)]
    if settings.api_port:
        require_free(settings.api_port, what="the API server", flag="--api-port")
        command += ["--port", str(settings.api_port)]
    if settings.authentication:
        command += ["--authorization", "RBAC"]
    # First, because it is the one that may find its place taken.
    store = await _start_store(supervisor) if settings.samples else None
    # Trained meanwhile: it waits for nothing else.
    training = None if store is None else asyncio.create_task(_fill_store(store))
    try:
        await supervisor.start(Program("cluster", tuple(command)))
        # Half a second that the connection below needs, while the cluster starts.
        await asyncio.to_thread(importlib.import_module, "kubernetes.aio")
        await _until(kubeconfig.exists, what="the API server")
        report("installing the CRDs")
        async with connection(Target(kubeconfig)) as client:
            await _prepare(client)
            if settings.authentication:
                await _give_roles(client)
            webhook = f"{LOOPBACK}:{free_ports(1)[0]}"
            await client.apply(
                CONFIGURATIONS, configuration(by_url(webhook)), field_manager=FIELD_MANAGER
            )
        report("starting the operator and the gateway")
        gateway_port = free_port(settings.gateway_port)
        ready_urls = await _start_rooms(
            supervisor,
            kubeconfig,
            gateway_port=gateway_port,
            webhook=webhook,
            authentication=settings.authentication,
            cache_claim=settings.cache_claim,
        )
        for name, url in ready_urls.items():
            await until_answers(url, what=f"the {name}", within=START_TIMEOUT)
        samples: tuple[Json, ...] = ()
        if training is not None:
            report("training the sample models and uploading them")
            samples = await training
    finally:
        if training is not None:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)
    return DevCluster(
        kubeconfig=kubeconfig,
        gateway=f"http://{LOOPBACK}:{gateway_port}",
        store=store,
        samples=samples,
        logs=supervisor.log_of("cluster").parent.absolute(),
        seconds=time.monotonic() - started,
    )


async def _prepare(client: KubeClient) -> None:
    """Installs the CRDs and the namespaces, and waits until the CRDs are served."""
    for name in NAMESPACES_TO_MAKE:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await client.apply(NAMESPACES, namespace, field_manager=FIELD_MANAGER)
    for crd in read_crds():
        await client.apply(CUSTOM_RESOURCE_DEFINITIONS, crd, field_manager=FIELD_MANAGER)
    deadline = time.monotonic() + START_TIMEOUT
    for crd in read_crds():
        name = crd["metadata"]["name"]
        while True:
            served = await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
            conditions = served.get("status", {}).get("conditions", ())
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                break
            if time.monotonic() > deadline:
                raise CommandError(f"CustomResourceDefinition {name} was not established")
            await asyncio.sleep(0.05)


async def _give_roles(client: KubeClient) -> None:
    """The roles that people are given, `beamlit-consumer` among them."""
    for role in read_roles("people"):
        group, _, version = role["apiVersion"].rpartition("/")
        kind, namespaced = role["kind"], "namespace" in role["metadata"]
        resource = Resource(group, version, f"{kind.lower()}s", kind, namespaced=namespaced)
        await client.apply(resource, role, field_manager=FIELD_MANAGER)


async def _start_rooms(
    supervisor: Supervisor,
    kubeconfig: Path,
    *,
    gateway_port: int,
    webhook: str,
    authentication: bool,
    cache_claim: str,
) -> dict[str, str]:
    """Starts the operator and the gateway; returns where each says that it is ready."""
    admin, xds, envoy_admin, operator, review = free_ports(5)
    guarded = ("--authentication", "--authentication-listen", f"{LOOPBACK}:{review}")
    python = (sys.executable, "-m")
    await supervisor.start(
        Program(
            "gateway",
            (
                *(*python, "beamlit_operator.gateway", "--kubeconfig", str(kubeconfig)),
                *("--listen", f"{LOOPBACK}:{gateway_port}", "--admin", f"{LOOPBACK}:{admin}"),
                *("--xds-listen", f"{LOOPBACK}:{xds}"),
                *("--envoy-admin", f"{LOOPBACK}:{envoy_admin}"),
                # Whoever presses Ctrl-C does not want to wait for a stream to end.
                *("--drain-time", "2", "--drain-delay", "0"),
                *(guarded if authentication else ()),
            ),
        )
    )
    await supervisor.start(
        Program(
            "operator",
            (
                *(*python, "beamlit_operator.controllers", "--kubeconfig", str(kubeconfig)),
                *("--gateway-url", f"http://{LOOPBACK}:{gateway_port}"),
                *("--gateway-load", f"http://{LOOPBACK}:{admin}/load"),
                *("--operator-namespace", OPERATOR_NAMESPACE),
                *("--listen", f"{LOOPBACK}:{operator}", "--webhook-listen", webhook),
                # There is one operator; a Lease of one that was killed would only delay it.
                "--no-leader-election",
                *(("--cache-claim", cache_claim) if cache_claim else ()),
            ),
        )
    )
    return {
        "gateway": f"http://{LOOPBACK}:{admin}/readyz",
        "operator": f"http://{LOOPBACK}:{operator}/readyz",
    }


async def _start_store(supervisor: Supervisor) -> str:
    """Starts the S3 store of the samples at the address that their manifests name."""
    require_free(STORE_PORT, what="the sample store", flag=None)
    command = (sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(STORE_PORT))
    await supervisor.start(Program("store", command))
    return f"http://{LOOPBACK}:{STORE_PORT}"


async def _fill_store(store: str) -> tuple[Json, ...]:
    """Trains the sample models and uploads them; returns what each is.

    Raises:
        CommandError: it did not work; says why.
    """
    await until_answers(f"{store}/moto-api/", what="the sample store", within=START_TIMEOUT)
    # In a process of its own: the libraries need more memory than all the rest here.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beamlit_operator.cli.samples", store),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise CommandError(f"the sample models could not be made: {reason}")
    return tuple(json.loads(line) for line in output.splitlines())


async def _until(condition: Callable[[], object], *, what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(f"{what} was not ready within {START_TIMEOUT:g} s")
        await asyncio.sleep(0.02)
