"""Writes the tables of docs/operations.md that have their source elsewhere; `--check` compares.

Runbooks come from the chart's alerts, what to do about a condition's reason from api/remedies.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from beamlit_operator.api.reasons import Reason
from beamlit_operator.api.remedies import REMEDIES

ROOT = Path(__file__).resolve().parents[1]
ALERTS = ROOT / "helm" / "beamlit-operator" / "files" / "monitoring" / "alerts.yaml"
PAGE = ROOT / "docs" / "operations.md"


def runbooks(groups: list[dict[str, Any]]) -> Iterator[str]:
    """A section for each alert; its heading is the anchor of `runbook_url`."""
    for group in groups:
        for rule in group["rules"]:
            told = rule["annotations"]
            yield f"### {rule['alert']}\n\n"
            yield f"*{rule['labels']['severity']}, after {rule['for']}.* {told['description']}\n\n"
            yield f"```promql\n{rule['expr'].strip()}\n```\n\n"
            yield f"What to do: {told['action']}\n\n"


def reasons() -> Iterator[str]:
    """A row for each reason."""
    yield "| reason | meaning | what to do |\n|---|---|---|\n"
    for reason in Reason:
        cells = (f"`{reason}`", reason.doc, REMEDIES[reason])
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def written(page: str, *, alerts: str) -> str:
    """The page as it should be."""
    groups = yaml.safe_load(alerts)["groups"]
    page = _between(page, "runbooks", "".join(runbooks(groups)).rstrip() + "\n")
    return _between(page, "reasons", "".join(reasons()))


def _between(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: begin, by `make chart` -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE} has no lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    options = parser.parse_args(arguments)
    page = PAGE.read_text()
    wanted = written(page, alerts=ALERTS.read_text())
    if options.check:
        if page != wanted:
            print(f"{PAGE.relative_to(ROOT)} is not up to date: run `make chart`", file=sys.stderr)
        return int(page != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
