"""One system for all tests of this folder, in which roles hold.

The API server asks RBAC. Operator and gateway each speak as their own ServiceAccount, with the
roles in manifests/rbac and no other; tests speak as the cluster's admin unless they say otherwise.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from tests.integration.governance.traffic import PATIENCE
from tests.integration.system.conftest import Workspace
from tests.support.logs import json_lines
from tests.support.stack import ROOT, Stack, free_port, running_stack

from beamlit_operator.controllers.admission.configuration import by_url, configuration
from beamlit_operator.kube import NAMESPACES, Json, connect

RBAC = ROOT / "manifests" / "rbac"
SYSTEM = "beamlit-system"
_numbers = itertools.count(1)


class GovernedStack(Stack):
    """A stack under RBAC."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.access_log = folder / "access.jsonl"
        self.cluster_flags = ("--authorization", "RBAC", "--access-log", str(self.access_log))
        review = f"127.0.0.1:{free_port()}"
        self.gateway_flags = ("--authentication", "--authentication-listen", review)
        self.webhook = f"127.0.0.1:{free_port()}"
        self.operator_flags = (
            *("--log-format", "json", "--identity", "operator-0"),
            *("--webhook-listen", self.webhook),
        )

    def prepare(self) -> None:
        self.kubectl("apply", "-k", str(RBAC))
        self.install_webhook()
        self.operator_kubeconfig = self.kubeconfig_of("beamlit-operator", SYSTEM)
        self.gateway_kubeconfig = self.kubeconfig_of("beamlit-gateway", SYSTEM)
        # One who calls the models of every workspace.
        self.kubectl("create", "serviceaccount", "caller", "-n", SYSTEM)
        whom = ("--clusterrole=beamlit-consumer", f"--serviceaccount={SYSTEM}:caller")
        self.kubectl("create", "clusterrolebinding", "caller", *whom)
        flags = ("-n", SYSTEM, "--audience=beamlit", "--duration=8h")
        token = self.kubectl("create", "token", "caller", *flags).strip()
        self.caller_headers = {"Authorization": f"Bearer {token}"}

    def install_webhook(self) -> None:
        """Lets the API server ask the operator, as the one that installs the operator does."""
        body = json.dumps(configuration(by_url(self.webhook)))
        flags = ("--server-side", "--field-manager=installer", "-f", "-")
        self.kubectl("apply", *flags, stdin=body)

    def kubeconfig_of(self, account: str, namespace: str) -> Path:
        """A kubeconfig with nothing but a token of the ServiceAccount."""
        token = self.kubectl("create", "token", account, "-n", namespace, "--duration=8h").strip()
        config = yaml.safe_load(self.kubeconfig.read_text())
        (user,) = config["users"]
        user["user"] = {"token": token}
        path = self.folder / f"{namespace}-{account}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def uses(self, user: str) -> list[Json]:
        """The kinds of requests that a user has made."""
        return [use for use in json_lines(self.access_log) if use["user"] == user]

    def operator_log(self) -> list[Json]:
        """What the operator has logged, over all its lives."""
        return json_lines(self.folder / "operator.log", beginning="{")

    async def until_log_of(
        self, workspace: Workspace, kind: str, name: str, **fields: object
    ) -> Json:
        """Waits for a line of the operator's log about an object."""
        wanted = {"workspace": workspace.name, "kind": kind, "name": name, **fields}
        deadline = time.monotonic() + PATIENCE
        while True:
            for line in self.operator_log():
                if all(line.get(field) == value for field, value in wanted.items()):
                    return line
            assert time.monotonic() < deadline, f"no line with {wanted}:{self.logs()}"
            await asyncio.sleep(0.1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("governed"), GovernedStack) as stack:
        yield stack


@pytest.fixture
async def workspace(stack) -> AsyncIterator[Workspace]:
    name = f"gov-{next(_numbers)}"
    async with await connect(stack.kubeconfig) as client, aiohttp.ClientSession() as http:
        await client.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        yield Workspace(name, stack, client, http)
        await client.delete(NAMESPACES, name)
