"""Finds a Python of a wanted version on this machine that really runs.

A name on PATH proves nothing: pyenv's shims exist for versions that are not selected and fail when
called. So every candidate is asked, and must be able to create virtual environments.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ASK_TIMEOUT = 20.0
"""Seconds a candidate may take to answer; a loaded laptop with a cold disk is slow."""

_QUESTION = (
    "import sys, venv, ensurepip; "
    "print('%d.%d' % sys.version_info[:2]); print(sys.implementation.cache_tag); "
    "print(getattr(sys, '_base_executable', sys.executable) or sys.executable)"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that answered."""

    version: str
    """Major and minor, such as ``3.12``."""
    tag: str
    """Names implementation and version, such as ``cpython-312``."""
    path: Path


async def ask(candidate: str | os.PathLike[str]) -> Interpreter | None:
    """What a candidate says it is, or None when it does not run."""
    try:
        process = await asyncio.create_subprocess_exec(
            candidate,
            "-I",
            "-c",
            _QUESTION,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), ASK_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    lines = output.decode(errors="replace").split("\n")
    if process.returncode != 0 or len(lines) < 3:
        return None
    return Interpreter(lines[0].strip(), lines[1].strip(), Path(lines[2].strip()))


async def find(versions: Sequence[str], *, or_newer: bool) -> Interpreter | None:
    """The first Python of one of ``versions``, in their order; else a newer one if that is allowed.

    Looks at the running one, at PATH, and at the usual homes of pyenv, uv and conda.
    """
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in versions:
        for candidate in _candidates(version):
            found = await ask(candidate)
            if found is not None and found.version == version:
                return found
    if or_newer and _number(running) > max(map(_number, versions), default=(0, 0)):
        return await ask(sys.executable)
    return None


def _candidates(version: str) -> Iterator[str]:
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        yield sys.executable
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    home = Path.home()
    for pattern in (
        f".pyenv/versions/{version}.*/bin/python{version}",
        f".local/share/uv/python/cpython-{version}.*/bin/python{version}",
    ):
        for path in sorted(home.glob(pattern), reverse=True):
            yield str(path)
    for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"):
        path = Path(folder, f"python{version}")
        if path.exists():
            yield str(path)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
