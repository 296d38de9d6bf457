"""A release of the chart with real processes: every container of its pods runs.

The API server asks RBAC, so operator and gateway have the rights that the chart gives them and no
others. What the cluster was asked is in its access log, what it was made to write in its audit log.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support.chart import CHART, RELEASE, SYSTEM, Values, merged
from tests.support.logs import json_lines
from tests.support.stack import Stack

from beamlit_operator.cli.processes import descendants
from beamlit_operator.kube import Json

# No pod has a network of its own here, so nothing may listen on loopback or on all addresses; and
# there is no DNS. All else is as on any cluster.
EMBEDDED: Values = {
    "bindAddress": "$(POD_IP)",
    "operator": {"extraEnv": [{"name": "HOME", "value": "/scratch"}]},
    "gateway": {
        "drainTime": 1,
        "drainDelay": 0,
        "startDeadline": 60,
        "agent": {
            "extraArgs": [
                "--xds-listen=$(POD_IP):18000",
                "--envoy-admin=$(POD_IP):19000",
                "--authentication-listen=$(POD_IP):18001",
            ],
            "extraEnv": [{"name": "HOME", "value": "/scratch"}],
        },
    },
}


ENFORCE = "pod-security.kubernetes.io/enforce"


class ChartedStack(Stack):
    """A cluster under RBAC and stores of models; operator and gateway come with the chart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.access_log = folder / "access.jsonl"
        self.audit_log = folder / "audit.jsonl"
        self.cluster_flags = (
            *("--authorization", "RBAC"),
            *("--access-log", str(self.access_log), "--audit-log", str(self.audit_log)),
        )

    def start(self) -> None:
        self.start_stores()
        self.start_cluster()
        self.kubectl("create", "namespace", SYSTEM)
        self.kubectl("label", "namespace", SYSTEM, f"{ENFORCE}=restricted")
        self._admit_caller()

    def _admit_caller(self) -> None:
        """One who may call the models of every workspace, by a role that is not the chart's."""
        self.kubectl("create", "serviceaccount", "caller", "-n", "default")
        rule = {"apiGroups": ["beamlit.com"], "resources": ["modeldeployments/invoke"]}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "caller"},
            "rules": [{**rule, "verbs": ["create"]}],
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(role))
        whom = ("--clusterrole=caller", "--serviceaccount=default:caller")
        self.kubectl("create", "clusterrolebinding", "caller", *whom)
        flags = ("--audience=beamlit", "--duration=8h")
        token = self.kubectl("create", "token", "caller", "-n", "default", *flags).strip()
        self.caller_headers = {"Authorization": f"Bearer {token}"}

    def uses(self, account: str = "") -> list[Json]:
        """The kinds of requests that an account of the release made; of all of them if none."""
        user = f"system:serviceaccount:{SYSTEM}:{account}"
        uses = json_lines(self.access_log)
        return [
            use
            for use in uses
            if (use["user"] == user if account else use["user"].startswith(user))
        ]

    def refused(self) -> list[Json]:
        """What the accounts of the release asked for and may not do."""
        return [use for use in self.uses() if not use["allowed"]]

    def written(self, account: str) -> list[Json]:
        """Audit events of what an account of the release has written."""
        events = json_lines(self.audit_log)
        user = f"system:serviceaccount:{SYSTEM}:{account}"
        return [event for event in events if event["user"]["username"] == user]

    def processes(self, pod: str, program: str = "") -> list[int]:
        """The processes of a pod's containers that have ``program`` in their command line."""
        mark, found = f"HOSTNAME={pod}".encode(), []
        for pid in descendants(self.pid("cluster")):
            try:
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in variables and program in words:
                found.append(pid)
        return found

    def signal(self, pod: str, number: signal.Signals, program: str = "") -> None:
        """Sends a signal to processes of a pod, of which there must be some."""
        pids = self.processes(pod, program)
        assert pids, f"no process {program!r} of the pod {pod} runs"
        for pid in pids:
            os.kill(pid, number)

    def pod_log(self, pod: str) -> str:
        return self.kubectl("logs", "-n", SYSTEM, pod, "--all-containers", "--tail=60")

    def logs(self) -> str:
        """The ends of all logs, the pods' of the release too."""
        found = super().logs()
        for line in self.kubectl("get", "pods", "-n", SYSTEM, "-o", "name").split():
            found += f"\n--- {line}\n{self.pod_log(line.removeprefix('pod/'))}"
        return found


class Release:
    """The release of the chart, as Helm's own engine makes, changes and removes it."""

    def __init__(self, helm: Any, kubeconfig: Path, *, values: Values) -> None:
        """``values`` are those of the cluster; what a call is given comes over them."""
        self._helm = helm
        self._configuration = helm.Configuration(SYSTEM, str(kubeconfig))
        self.values = values

    async def install(
        self, values: Values | None = None, *, chart: Path = CHART, timeout: int = 180
    ) -> None:
        """Installs the chart and waits until all of it is ready."""
        await self._helm.Install(self._configuration).run(
            RELEASE,
            str(chart),
            merged(self.values, values or {}),
            create_namespace=True,
            timeout=timeout,
        )

    async def upgrade(
        self, values: Values | None = None, *, chart: Path = CHART, timeout: int = 180
    ) -> None:
        """Upgrades to a chart and to values, and waits until all of it is ready."""
        await self._helm.Upgrade(self._configuration).run(
            RELEASE, str(chart), merged(self.values, values or {}), timeout=timeout
        )

    async def fail_to_upgrade(self, values: Values, *, timeout: int) -> None:
        """Upgrades to values that do not work, upon which Helm rolls back by itself."""
        with pytest.raises(self._helm.UpgradeError):
            await self._helm.Upgrade(self._configuration).run(
                RELEASE,
                str(CHART),
                merged(self.values, values),
                timeout=timeout,
                rollback_on_failure=True,
            )

    async def test(self) -> None:
        await self._helm.ReleaseTest(self._configuration).run(RELEASE)

    async def uninstall(self, *, timeout: int = 180) -> None:
        await self._helm.Uninstall(self._configuration).run(RELEASE, timeout=timeout)
