"""``beamlit cache list|tidy FOLDER``: what is in a cache of models' files, and what of it goes.

The operator runs the second in a pod of the workspace; people may run both.

Exit codes: 0 done; 1 the volume cannot be read, or something could not be removed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from beamlit_operator.origins.fetching import cache
from beamlit_operator.origins.fetching.eviction import GRACE_SECONDS, Entry, chosen, may_go
from beamlit_operator.origins.sizes import mebibytes, size

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")


def main(arguments: Sequence[str] | None = None, *, prog: str = "beamlit cache") -> int:
    """Runs the command and returns its exit code."""
    try:
        given = _parser(prog).parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        if given.command == "list":
            return _list(given.folder, as_json=given.output == "json")
        return _tidy(given)
    except BrokenPipeError:
        # Who reads has read enough, as with `| head`; the interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(
            f"{prog}: {error.filename or given.folder}: {error.strerror or error}: check the volume"
        )
        return 1


def _list(folder: Path, *, as_json: bool) -> int:
    found = cache.entries(folder)
    if as_json:
        rows = [
            {
                "name": each.name,
                "complete": each.complete,
                "bytes": each.bytes,
                "used": each.used,
                "holds": each.holds,
            }
            for each in found
        ]
        print(json.dumps(rows, indent=2), flush=True)
        return 0
    print(f"{'FOLDER':32}  {'COMPLETE':8}  {'SIZE':>12}  {'LAST USED':20}  HOLDS")
    for each in sorted(found, key=lambda entry: -entry.used):
        used = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.used))
        complete = "yes" if each.complete else "no"
        # What is written on the volume may be anything.
        holds = _shortened(each.holds if each.holds.isprintable() else repr(each.holds))
        print(f"{each.name}  {complete:8}  {mebibytes(each.bytes):>12}  {used:20}  {holds}")
    sys.stdout.flush()
    return 0


def _shortened(holds: str) -> str:
    """Digests and commits as people compare them, and no patterns where there are none."""
    return _DIGEST.sub(r"\1", holds).replace(" [] []", "")


def _tidy(given: argparse.Namespace) -> int:
    then = given.then if given.then is not None else time.time()
    keep, folder = frozenset(given.keep), given.folder
    cache.remove_gone(folder)
    found = cache.entries(folder)
    total, removed, failures = sum(each.bytes for each in found), 0, 0

    def condemned(now: Entry) -> bool:
        return may_go(now, keep=keep, then=then)

    for entry in chosen(found, keep=keep, then=then, limit=given.limit):
        try:
            gone = cache.remove(folder, entry.name, condemned=condemned)
        except OSError as error:
            failures += 1
            _say(f"{entry.name} could not be removed: {error.filename}: {error.strerror}")
            continue
        if gone:
            removed += 1
            total -= entry.bytes
            _say(
                f"removed {entry.name}, {mebibytes(entry.bytes)}: "
                f"{_shortened(entry.holds) or 'not complete'}"
            )
        else:
            _say(f"left {entry.name}: it is being used")
    folders = "1 folder" if removed == 1 else f"{removed} folders"
    _say(f"{folders} removed, {len(found) - removed} left with {mebibytes(total)}")
    if given.limit is not None and total > given.limit:
        _say(
            f"that is above the limit of {mebibytes(given.limit)}, but all of it is in use or was"
            f" less than {GRACE_SECONDS / 60:.0f} minutes ago"
        )
    return 1 if failures else 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="What is in a cache of models' files, and what of it goes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="every folder, its size and its last use")
    listing.add_argument("folder", type=Path, help="where the volume is mounted")
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table")
    tidy = commands.add_parser(
        "tidy",
        help="remove what is not complete and, above a limit, what was not used for longest",
    )
    tidy.add_argument("folder", type=Path, help="where the volume is mounted")
    tidy.add_argument(
        "--limit", type=size, metavar="SIZE", help="what all may take together, such as 500Gi"
    )
    tidy.add_argument(
        "--keep",
        action="extend",
        nargs="*",
        default=[],
        metavar="FOLDER",
        help="in use: not removed (repeatable)",
    )
    tidy.add_argument(
        "--then",
        type=float,
        metavar="SECONDS",
        help="when --keep was looked up, since 1970; default: now. What was used in the"
        f" {GRACE_SECONDS / 60:.0f} minutes before, or since, stays",
    )
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
