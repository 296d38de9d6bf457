"""Prints the part of constraints.txt that some packages need here, with its hashes.

`python locked.py --project` is for what the project runs with, `python locked.py NAME...` for
others. pip resolves within the lock; what it then installs is checked by hash.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LOCK = Path("constraints.txt")
_FIRST = re.compile(r"([A-Za-z0-9._-]+)==")


def entries(text: str) -> dict[str, str]:
    """Each package's lines in the lock, by its normalised name."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if first := _FIRST.match(line):
            name = normalised(first[1])
        if name:
            found[name] = found.get(name, "") + line
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(locked: dict[str, str]) -> str:
    """The lock without its hashes: with them, pip wants the roots to be pinned as well."""
    return "".join(lines.splitlines()[0].rstrip(" \\") + "\n" for lines in locked.values())


def resolved(roots: list[str], locked: dict[str, str]) -> set[str]:
    """The names of all that the roots need on this platform."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(pins(locked))
        constraints.flush()
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
        options += ["--constraint", constraints.name]
        command = [sys.executable, "-m", "pip", "install", *options, *roots]
        # What pip complains of is for people to see.
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {normalised(item["metadata"]["name"]) for item in report["install"]}


def main(arguments: list[str]) -> int:
    if arguments == ["--project"]:
        arguments = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    locked = entries(LOCK.read_text())
    for name in sorted(resolved(arguments, locked)):
        if name not in locked:
            print(f"{name} is not in {LOCK}: run `make lock`", file=sys.stderr)
            return 1
        sys.stdout.write(locked[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
