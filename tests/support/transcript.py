"""Pages that show commands and what they print: run again, and compared in shape.

In a block ```` ```console ```` a line that begins with ``$`` is a command (a ``\\`` at its end goes
on in the next line), and what follows is its output. A line ``...`` stands for any lines. What
differs from run to run is not compared: hashes, times, ages, ports, what somebody counted or
measured of a sample of requests, and revisions that are about to go.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.cli.main import main

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "..."

VOLATILE = (
    (re.compile(r"\b[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ?"), "TIME"),
    (re.compile(r"127\.0\.0\.1:\d+"), "GATEWAY"),
    (re.compile(r"\b(\d+[dhms])+$"), "AGE"),
    (re.compile(r"^ *\d+ (?=\")"), "COUNT "),
    (re.compile(r"\d+ requests"), "N requests"),
    (re.compile(r"(, (stable )?p95 [0-9.e+]+ ms)+"), ""),
    (re.compile(r"[0-9.e+]+ (ms|% errors|% of its requests)"), r"N \1"),
    (re.compile(r"[-=]{3,}"), "---"),
    (re.compile(r" {2,}"), " "),
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, and what the page says it prints."""

    line: int
    text: str
    output: str


def commands(page: str) -> list[Command]:
    """All commands of a page, in order."""
    found = []
    for block in BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(1)) + 1
        lines = block[1].splitlines()
        starts = [n for n, text in enumerate(lines) if text.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            last = start
            while lines[last].endswith("\\"):
                last += 1
            text = "\n".join(lines[start : last + 1]).removeprefix("$ ")
            found.append(Command(first + start, text, "\n".join(lines[last + 1 : end])))
    return found


def run(command: Command, *, folder: Path, environment: dict[str, str], within: float) -> str:
    """What the command prints, errors too; ours run in this process, which is faster."""
    ours, _, rest = command.text.replace("\\\n", " ").partition("|")
    if not ours.startswith("beamlit ") or set(ours) & set("><;$"):
        return _bash(command.text, "", folder, environment, within)
    out, errors = _ours(shlex.split(ours)[1:], folder, environment)
    return errors + (_bash(rest, out, folder, environment, within) if rest else out)


def _bash(text: str, stdin: str, folder: Path, environment: dict[str, str], within: float) -> str:
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, **environment},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=within,
    )
    return done.stdout


def _ours(arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[str, str]:
    out, errors = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            main(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return out.getvalue(), errors.getvalue()


def shape(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    lines = []
    for line in text.splitlines():
        shaped = line.rstrip()
        for pattern, word in VOLATILE:
            shaped = pattern.sub(word, shaped)
        lines.append(shaped.strip())
    return [line for line in lines if line and not line.startswith("retiring ")]


def fits(said: str, printed: str) -> bool:
    """Whether a command printed what the page says."""
    return _fits(shape(said), shape(printed))


def _fits(said: list[str], printed: list[str]) -> bool:
    if not said:
        return not printed
    if said[0] == ANYTHING:
        return any(_fits(said[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and said[0] == printed[0] and _fits(said[1:], printed[1:])


def rewritten(page: str, play: Callable[[Command], str]) -> str:
    """The page with what the commands print now; outputs with ``...`` stay as they are written."""
    lines = page.splitlines()
    played = [(command, play(command)) for command in commands(page)]
    for command, printed in reversed(played):
        if ANYTHING in command.output.splitlines():
            continue
        start = command.line + command.text.count("\n")
        end = start + len(command.output.splitlines())
        lines[start:end] = [line.rstrip() for line in printed.rstrip("\n").splitlines()]
    return "\n".join(lines) + "\n"
