"""``beamlit dev`` as a person uses it: another terminal, kubectl, Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.support.processes import none_left, wait_until

from .conftest import BEAMLIT, END_WITHIN, Dev, running_dev

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl"),
    # One at a time: each needs the whole machine for a while.
]


@contextmanager
def console(dev: Dev) -> Iterator[str]:
    """The console's address while it runs."""
    with subprocess.Popen(
        [*BEAMLIT, "console", "--port", "0"], env=dev.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


@pytest.mark.usefixtures("sample_store", "mlserver_image")
def test_a_second_model_is_applied_by_hand_called_and_ctrl_c_leaves_no_process(
    tmp_path: Path,
) -> None:
    with running_dev(tmp_path / "data", "--samples") as dev:
        screen = dev.screen.read_text()
        assert "export KUBECONFIG=" in screen
        assert "Gateway   http://127.0.0.1:" in screen

        dev.done("kubectl", "apply", "-f", str(SAMPLES / "second-model"))
        dev.done(
            *("kubectl", "wait", "--for=condition=Ready", "modeldeployment/wine-development"),
            "--timeout=90s",
        )
        request = f"@{SAMPLES / 'requests' / 'wine.json'}"
        answer = dev.done(*BEAMLIT, "invoke", "wine", "-e", "development", "-d", request)
        assert json.loads(answer)["outputs"][0]["data"] == [0]

        models = dev.done(*BEAMLIT, "get", "models")
        assert "wine" in models
        assert "DEVELOPMENT" in models
        assert "Active" in dev.done(*BEAMLIT, "get", "deployments")
        assert "Serving" in dev.done(*BEAMLIT, "status", "wine-development")
        assert dev.run(*BEAMLIT, "policy", "explain", "wine-development").returncode == 0

        rendered = dev.done(*BEAMLIT, "render", "-f", str(SAMPLES / "second-model"))
        workload = next(d for d in yaml.safe_load_all(rendered) if d["kind"] == "Deployment")
        assert workload["metadata"]["name"] in dev.done("kubectl", "get", "deployments")

        # Again, since a slow machine may have got here only after it went to sleep.
        dev.done(*BEAMLIT, "invoke", "wine", "-e", "development", "-d", request)
        with console(dev) as url:
            with urllib.request.urlopen(f"{url}/events", timeout=60) as stream:
                assert stream.readline() == b"event: rows\n"
                rows = json.loads(stream.readline().removeprefix(b"data: "))
            row = next(r["row"] for r in rows if r["key"].endswith("/wine-development"))
            assert (row["kind"], row["phase"]) == ("ModelDeployment", "Active")

        wrong = dev.run(*BEAMLIT, "invoke", "wine", "-d", request)
        assert wrong.returncode == 1
        assert "it is deployed in: development" in wrong.stderr

        processes = dev.processes()
        assert any("mlserver" in command for command in processes.values())
        assert any("envoy" in command for command in processes.values())
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(END_WITHIN) == 0
        none_left(processes, within=20)
        assert "nothing is left running" in dev.screen.read_text()


def test_operator_and_gateway_that_die_come_back_and_the_api_servers_death_ends_all(
    tmp_path: Path,
) -> None:
    with running_dev(tmp_path / "data") as dev:

        def pid_of(module: str) -> int:
            found = [p for p, c in dev.processes().items() if f"beamlit_operator.{module}" in c]
            return found[0] if found else 0

        for module, name in (("controllers", "operator"), ("gateway", "gateway")):
            before = pid_of(module)
            dev.run("kill", "-KILL", str(before))
            wait_until(
                lambda before=before, module=module: pid_of(module) not in (0, before),
                within=END_WITHIN,
                state=dev.logs,
            )
            # It is told once the new one runs.
            wait_until(
                lambda name=name: (
                    f"the {name} was killed by signal 9 and was" in dev.screen.read_text()
                ),
                within=END_WITHIN,
                state=dev.logs,
            )
        # The new operator does its work, and the new gateway answers.
        dev.done("kubectl", "apply", "-f", str(SAMPLES / "quickstart" / "1-policy-us-only.yaml"))
        wait = ("kubectl", "wait", "--for=condition=Ready", "--timeout=90s")
        dev.done(*wait, "policies.beamlit.com/us-only")
        gateway = dev.screen.read_text().partition("Gateway   ")[2].split()[0]

        def answers() -> bool:
            try:
                urllib.request.urlopen(gateway, timeout=20)
            except urllib.error.HTTPError as refusal:
                return refusal.code == 404
            except OSError:
                return False
            return False

        wait_until(answers, within=END_WITHIN, state=dev.logs)

        processes = dev.processes()
        dev.run("kill", "-KILL", str(pid_of("devcluster")))
        wait_until(lambda: dev.process.poll() is not None, within=END_WITHIN, state=dev.logs)
        assert dev.process.returncode == 1
        none_left(processes, within=20)
        assert "the cluster was killed by signal 9. Its log" in dev.screen.read_text()


@pytest.mark.long
def test_killed_outright_it_leaves_no_process_and_what_was_applied_is_there_after(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    policy = ("kubectl", "get", "policies.beamlit.com", "-o", "name")
    with running_dev(folder) as dev:
        dev.done("kubectl", "apply", "-f", str(SAMPLES / "quickstart" / "1-policy-us-only.yaml"))
        processes = dev.processes()
        assert len(processes) >= 4
        dev.process.kill()
        none_left(processes, within=END_WITHIN)
    with running_dev(folder) as dev:
        assert "us-only" in dev.done(*policy)
    with running_dev(folder, "--reset") as dev:
        assert "us-only" not in dev.done(*policy)
