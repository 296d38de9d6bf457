"""Pulls images: creates the virtual environments that stand for them, once per machine."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.devcluster.images import interpreters
from beamlit_operator.devcluster.images.interpreters import Interpreter
from beamlit_operator.devcluster.images.table import Image

RECIPE = "1"
"""Part of every environment's name: raise it when the way they are built changes."""

COMPLETE = ".complete"

LOCK_PAUSE = 0.25
"""Seconds between two looks at a lock that somebody else holds."""

SHIM = Path(__file__).parent / "shim"
"""A folder for PYTHONPATH; see its ``sitecustomize``."""


CALLED_BY_NAME = '#!/bin/sh\nexec "$(dirname "$0")/python" "${variable}" "$@"\n'
"""What a shell in a pod finds for a program of the table. The file's place is in the pod's
environment and not in here, since environments outlive checkouts and are shared by them."""


class PullError(Exception):
    """The program of an image could not be installed; the message says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """An image ready to run."""

    image: Image
    bin: Path
    """The folder that must come first on PATH."""
    identity: str
    """Shown as ``imageID``."""

    def environment(self, pod_ip: str) -> dict[str, str]:
        """What the image brings into a container's environment."""
        values = {name: value.replace("{podIP}", pod_ip) for name, value in self.image.env.items()}
        return {"BEAMLIT_BIND_ADDRESS": pod_ip, "PYTHONPATH": str(SHIM), **values}

    def places(self) -> dict[str, str]:
        """Variables that say where on this machine the table's programs are."""
        return {_variable(name): str(file) for name, file in self.image.programs.items()}

    def line(self, command: Sequence[str]) -> tuple[str, ...]:
        """The command to start, where its program is one that the table has a file for."""
        file = self.image.programs.get(command[0]) if command else None
        if file is None:
            return tuple(command)
        return (str(self.bin / "python"), str(file), *command[1:])


def _variable(name: str) -> str:
    return f"BEAMLIT_PROGRAM_{re.sub('[^A-Z0-9]', '_', name.rsplit('/', 1)[-1].upper())}"


@dataclass(frozen=True, slots=True)
class Pulled:
    """The outcome of a pull."""

    program: Program
    seconds: float
    """How long it took; 0 when the program was there already."""


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where virtual environments are kept, shared by all clusters of the user."""
    chosen = environ.get("BEAMLIT_IMAGE_CACHE")
    if chosen:
        return Path(chosen)
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "beamlit", "images")


class ImageStore:
    """Turns images into programs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._pulls: dict[Image, asyncio.Task[Pulled]] = {}
        self._chosen: dict[Image, Interpreter] = {}
        self.environment: dict[str, str] = {}
        """Added to the environment of the processes that pull; the kubelet puts its mark here."""

    async def present(self, image: Image) -> Program | None:
        """The program if it is installed already."""
        if image.kind == "host":
            return Program(image, Path(sys.executable).parent, f"host://{sys.executable}")
        folder = await self._folder(image)
        if not (folder / COMPLETE).exists():
            return None
        return Program(image, folder / "bin", f"venv://{folder.name}")

    async def pull(self, image: Image) -> Pulled:
        """Installs the program if it is missing. Pods that want the same image share one pull.

        Raises:
            PullError: no suitable Python, or pip failed.
        """
        program = await self.present(image)
        if program is not None:
            return Pulled(program, 0.0)
        task = self._pulls.get(image)
        if task is None:
            task = asyncio.create_task(self._install(image))
            self._pulls[image] = task
            task.add_done_callback(lambda task: self._pulled(image, task))
        # Shielded: a pod that is deleted must not end the pull that others wait for.
        return await asyncio.shield(task)

    def _pulled(self, image: Image, task: asyncio.Task[Pulled]) -> None:
        self._pulls.pop(image, None)
        if not task.cancelled():
            # Looked at here, because every pod that waited for it may be gone.
            task.exception()

    async def close(self) -> None:
        """Ends pulls that are under way."""
        for task in list(self._pulls.values()):
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    async def _folder(self, image: Image) -> Path:
        assert image.requirements is not None
        python = self._chosen.get(image)
        if python is None:
            python = await interpreters.find(image.python, or_newer=image.fallback)
            if python is None:
                raise PullError(
                    f"{image.pattern} needs Python {' or '.join(image.python)}, and none was found "
                    f"on PATH or under ~/.pyenv; install one of them"
                )
            self._chosen[image] = python
        try:
            content = image.requirements.read_bytes()
        except OSError as error:
            raise PullError(f"requirements of {image.pattern}: {error}") from error
        recipe = " ".join((RECIPE, *sorted(image.programs)))
        digest = hashlib.sha256(
            b"\0".join((content, python.tag.encode(), str(python.path).encode(), recipe.encode()))
        ).hexdigest()
        name = image.pattern.rsplit("/", 1)[-1].replace("*", "_")
        return self._cache / f"{name}-{python.tag}-{digest[:12]}"

    async def _install(self, image: Image) -> Pulled:
        started = time.monotonic()
        folder = await self._folder(image)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            lock = await _locked_file(self._cache / f"{folder.name}.lock")
        except OSError as error:
            raise PullError(f"image cache {self._cache}: {error}") from error
        with _closing(lock):
            if not (folder / COMPLETE).exists():
                await self._build(image, folder)
        program = await self.present(image)
        if program is None:
            raise PullError(f"{folder} vanished while it was installed; it will be tried again")
        return Pulled(program, time.monotonic() - started)

    async def _build(self, image: Image, folder: Path) -> None:
        """Builds in place and marks the end: scripts of a virtual environment hold its path, so it
        cannot be built elsewhere and moved. What an interrupted build left is removed first.
        """
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        python = self._chosen[image]
        await self._run(f"creating {folder}", str(python.path), "-m", "venv", str(folder))
        own = str(folder / "bin" / "python")
        options = ["--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"]
        options += ["--require-hashes", "--only-binary", ":all:", "--quiet"]
        if python.version not in image.python:
            options.append("--ignore-requires-python")
        await self._run(
            f"installing {image.requirements}",
            *(own, "-m", "pip", "install", *options, "--requirement", str(image.requirements)),
        )
        # Once, here, with all cores: else the first start of the program pays for it (MLServer: 8 s
        # instead of 2). The packages' own tests are half of the files, and never run.
        options = ["-q", "-j", str(os.cpu_count() or 1), "-x", r"[/\\]tests?[/\\]"]
        libraries = str(folder / "lib")
        await self._run("compiling", own, "-m", "compileall", *options, libraries, may_fail=True)
        for name in image.programs:
            if "/" not in name:
                script = folder / "bin" / name
                script.write_text(CALLED_BY_NAME.format(variable=_variable(name)))
                script.chmod(0o755)
        await asyncio.to_thread((folder / COMPLETE).write_text, f"{image.pattern}\n")

    async def _run(self, what: str, *command: str, may_fail: bool = False) -> None:
        """Runs one step in its own session, so that it can be ended with everything it started."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment.update(self.environment)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            os.killpg(process.pid, 9)
            await process.wait()
            raise
        if process.returncode and not may_fail:
            tail = output.decode(errors="replace").strip()[-400:]
            raise PullError(f"{what} failed with code {process.returncode}: {tail}")


async def _locked_file(path: Path) -> int:
    """Waits for the lock that other clusters of this user may hold.

    Asks again and again instead of blocking a thread, so that a stop need not wait for the other.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                await asyncio.sleep(LOCK_PAUSE)
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
