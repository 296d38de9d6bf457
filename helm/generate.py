"""Writes what the chart and its documentation have from elsewhere; `--check` fails when it differs.

Copied into helm/beamlit-operator/files: crds/, manifests/rbac and manifests/admission, because Helm
reads nothing outside a chart. Made of values.yaml: the table of values in docs/install.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "beamlit-operator"
COPIED = {
    "crds": sorted((ROOT / "crds").glob("*.yaml")),
    "rbac": [ROOT / "manifests" / "rbac" / f"{n}.yaml" for n in ("operator", "gateway", "people")],
    "admission": [
        ROOT / "manifests" / "admission" / f"{n}.yaml" for n in ("placement-policy", "webhook")
    ],
}
INSTALL = ROOT / "docs" / "install.md"
BEGIN, END = "<!-- values: begin, by `make chart` -->\n", "<!-- values: end -->\n"

_KEY = re.compile(r"( *)([A-Za-z]+):(.*)")


@dataclass(frozen=True)
class Value:
    """One line of the table."""

    path: str
    default: Any
    meaning: str


def values(text: str) -> Iterator[Value]:
    """Every value that has a comment of its own above it, in the order of the file."""
    defaults = yaml.safe_load(text)
    comment: list[str] = []
    path: list[str] = []
    inside = -1
    for line in text.splitlines():
        bare = line.strip()
        found = _KEY.fullmatch(line)
        indent = len(line) - len(line.lstrip())
        if bare.startswith("#"):
            comment.append(bare.lstrip("# "))
            continue
        # Below a value that was described as a whole, nothing is described again.
        if found is None or (0 <= inside < indent):
            comment = []
            continue
        inside = -1
        path = [*path[: indent // 2], found[2]]
        if comment:
            default = defaults
            for key in path:
                default = default[key]
            yield Value(".".join(path), default, " ".join(comment))
            inside = indent
        comment = []


def table(text: str) -> str:
    """The values as a table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for value in values(text):
        default = yaml.safe_dump(
            value.default, default_flow_style=True, width=1000, sort_keys=False
        ).removesuffix("\n...\n")
        meaning = value.meaning.replace("|", "\\|")
        lines.append(f"| `{value.path}` | `{default.strip()}` | {meaning} |")
    return "\n".join(lines) + "\n"


def documented(text: str) -> str:
    """docs/install.md with the table as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{INSTALL} has no lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + table((CHART / "values.yaml").read_text()) + end + after


def files() -> dict[Path, str]:
    """Every file that is written, with what is in it."""
    found = {
        CHART / "files" / folder / source.name: source.read_text()
        for folder, sources in COPIED.items()
        for source in sources
    }
    return {**found, INSTALL: documented(INSTALL.read_text())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    options = parser.parse_args(arguments)
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    folders = [CHART / "files" / folder for folder in COPIED]
    surplus = [path for each in folders for path in each.glob("*") if path not in wanted]
    if options.check:
        for path in (*stale, *surplus):
            print(f"{path.relative_to(ROOT)} is not up to date: run `make chart`", file=sys.stderr)
        return 1 if stale or surplus else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in surplus:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
