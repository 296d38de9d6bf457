"""``beamlit dev``: its data directory, its ports, and what it says when a part dies."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from beamlit_operator.cli import dev, parts
from beamlit_operator.cli.dev import owned
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.main import main
from beamlit_operator.cli.ports import LOOPBACK, free_port, free_ports, is_free, require_free
from beamlit_operator.cli.processes import Program, Supervisor
from beamlit_operator.cli.shipped import read_crds, sample_folder


def test_reset_empties_only_a_folder_that_dev_made(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(CommandError, match="did not make") as caught, owned(tmp_path, reset=True):
        pass
    assert caught.value.status == 2
    assert precious.read_text() == "mine"


def test_reset_forgets_what_an_earlier_run_left(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with owned(folder, reset=False):
        (folder / "store").mkdir()
        (folder / "store" / "objects.json").write_text("{}")
        (folder / "kubeconfig").write_text("old")
        (folder / "outside").symlink_to(tmp_path)
    (tmp_path / "outside.txt").write_text("stays")
    with owned(folder, reset=True):
        assert sorted(entry.name for entry in folder.iterdir()) == [".gitignore", "dev.lock"]
    assert (tmp_path / "outside.txt").read_text() == "stays"


def test_two_clusters_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        owned(tmp_path, reset=False),
        pytest.raises(CommandError, match="in use by another"),
        owned(tmp_path, reset=False),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CommandError, match=r"--data-dir .*file/data"),
        owned(tmp_path / "file" / "data", reset=False),
    ):
        pass


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) > port
        with pytest.raises(CommandError, match=rf"{port}, which is taken: choose .* --api-port"):
            require_free(port, what="the API server", flag="--api-port")


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_the_crds_and_the_samples_are_found() -> None:
    kinds = {crd["spec"]["names"]["kind"] for crd in read_crds()}
    assert kinds == {"Model", "ModelDeployment", "Environment", "Policy"}
    assert (sample_folder("quickstart") / "4-model.yaml").exists()


def test_a_taken_api_port_is_said_without_a_traceback_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        command = [sys.executable, "-m", "beamlit_operator.cli.main", "dev"]
        ran = subprocess.run(
            [*command, "--data-dir", "data", "--api-port", str(taken.getsockname()[1])],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "100"},
            timeout=30,
        )
    assert ran.returncode == 1
    assert "which is taken" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(("claim", "told"), [("shared", ["--cache-claim", "shared"]), ("", [])])
async def test_the_operator_is_told_the_claim_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, claim: str, told: list[str]
) -> None:
    started: dict[str, Sequence[str]] = {}

    class Recording:
        async def start(self, program: Program) -> None:
            started[program.name] = program.command

    settings = app_settings(monkeypatch, *([f"--cache-claim={claim}"] if claim else []))
    await parts._start_rooms(
        cast("Supervisor", Recording()),
        Path("kubeconfig"),
        gateway_port=1,
        webhook="127.0.0.1:2",
        authentication=False,
        cache_claim=settings.cache_claim,
    )
    command = list(started["operator"])
    at = command.index("--cache-claim") if "--cache-claim" in command else len(command)
    assert command[at : at + 2] == told


def app_settings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> parts.DevSettings:
    """What `beamlit dev` would run."""
    seen: list[parts.DevSettings] = []

    async def command(settings: parts.DevSettings, *, reset: bool) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(dev, "dev_command", command)
    ended = threading.Thread(target=main, args=(["dev", *arguments],))
    ended.start()
    ended.join()
    return seen[0]


@pytest.mark.parametrize("base", ["/usr", sys.prefix])
def test_another_terminal_finds_the_commands_that_are_named(
    monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.setattr(sys, "base_prefix", base)
    cluster = parts.DevCluster(
        kubeconfig=Path("/a b/kubeconfig"),
        gateway="http://127.0.0.1:8080",
        store=None,
        samples=(),
        logs=Path("/logs"),
        seconds=1.0,
    )
    lines = dev.welcome(cluster, parts.DevSettings(Path("/a b"), samples=True)).plain.splitlines()
    assert "  export KUBECONFIG='/a b/kubeconfig'" in lines
    added = f"  export PATH=$PATH:{Path(sys.executable).parent}"
    assert (added in lines) == (base != sys.prefix)
