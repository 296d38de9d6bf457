"""``beamlit dev``: its data directory, its ports, and what it says when a part dies."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from beamlit_operator.cli.dev import owned
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.ports import LOOPBACK, free_port, free_ports, is_free, require_free
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
    assert (sample_folder("quickstart") / "model.yaml").exists()


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
