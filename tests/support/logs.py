"""Logs of JSON that are read while somebody writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def json_lines(log: Path, *, beginning: str = "") -> list[dict[str, Any]]:
    """The lines that have ended, as objects: of the last one there may be a half. Lines that do
    not begin so are left out."""
    ended, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in ended.splitlines() if line.startswith(beginning)]
