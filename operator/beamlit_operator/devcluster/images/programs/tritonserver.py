"""``tritonserver``: NVIDIA's own server, from the package that ships it, in a pod of this machine.

The nvidia-pytriton package holds the server and its Python backend as NVIDIA builds them, but not
the backends in C++. Triton lets a backend be written in Python (docs/python_based_backends.md of
github.com/triton-inference-server/backend): ``triton_backends/onnxruntime`` is such a one under the
name of the missing one, so that the same model repository runs here and in the real image.

What this adds to the command line is where backends are and the pod's address, on which alone it
may listen; flags that the pod gives stay. It then becomes the server.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

MEMORY = "beamlit-triton-"

ADDRESSES = ("--http-address", "--grpc-address", "--metrics-address")


def backends(server: Path, folder: Path) -> Path:
    """A folder with the backends. Copies, since Triton refuses links that lead elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(server / "backends", folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")
    for own in Path(__file__).with_name("triton_backends").iterdir():
        shutil.copytree(own, folder / own.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def options(arguments: list[str], address: str, folder: Path) -> list[str]:
    """What is added to the command line."""
    given = {argument.partition("=")[0] for argument in arguments}
    wanted = dict.fromkeys(ADDRESSES, address) if address else {}
    wanted["--backend-directory"] = str(folder)
    added = [f"{flag}={value}" for flag, value in wanted.items() if flag not in given]
    # Named by the process that this becomes, so that another one can tell whose it was.
    memory = f"{MEMORY}{os.getpid()}-"
    return [*added, f"--backend-config=python,shm-region-prefix-name={memory}"]


def tidy(shared: Path) -> None:
    """Removes the shared memory of servers that were killed, which is all that is left of them."""
    for region in shared.glob(f"{MEMORY}*"):
        owner = region.name.removeprefix(MEMORY).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            region.unlink(missing_ok=True)


def main() -> NoReturn:
    libraries = Path(sysconfig.get_path("platlib"))
    server = libraries / "pytriton" / "tritonserver"
    folder = Path(os.environ.get("TMPDIR", "/tmp"), "triton-backends")  # noqa: S108
    environment = dict(os.environ)
    # The copies find their libraries where the originals would.
    found = [str(libraries / "nvidia_pytriton.libs"), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, found))
    # The backend's Python takes its libraries from the first python3 on the path.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    tidy(Path("/dev/shm"))  # noqa: S108
    arguments = sys.argv[1:]
    added = options(
        arguments, environment.get("BEAMLIT_BIND_ADDRESS", ""), backends(server, folder)
    )
    program = str(server / "bin" / "tritonserver")
    os.execve(program, [program, *arguments, *added], environment)  # noqa: S606


if __name__ == "__main__":
    main()
