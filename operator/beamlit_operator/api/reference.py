"""Writes the field and reason reference of the documentation out of the models.

``python -m beamlit_operator.api.reference FILE`` writes it; ``--check`` fails when it differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.api.crd import KINDS, Kind, structural
from beamlit_operator.api.reasons import Reason

HEAD = f"""\
# Reference

<!-- Generated from operator/beamlit_operator/api by `make crds`. Do not edit. -->

The four kinds of `{labels.API_VERSION}`, field by field, and every reason a condition can carry.
The same text answers `kubectl explain modeldeployment.spec`.
"""


def document() -> str:
    """The whole reference, as Markdown."""
    rows = "".join(f"| `{reason}` | {_cell(reason.doc)} |\n" for reason in Reason)
    reasons = "## Reasons\n\n| reason | meaning |\n|---|---|\n" + rows
    return "\n".join([HEAD, *(_kind(kind) for kind in KINDS), reasons])


def _kind(kind: Kind) -> str:
    schema = structural(kind.model)
    short = ", ".join(f"`{name}`" for name in kind.short_names)
    lines = [f"## {kind.name}", "", f"`kubectl get {kind.plural}` (short: {short})", ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for part in ("spec", "status"):
        node = schema["properties"][part]
        for path, field, required in _fields(node, part):
            lines.append(f"| `{path}` | {_type(field)} | {_meaning(field, required)} |")
    # How a text is written stands in its own row.
    rules = [
        entry["message"]
        for _, node, _ in _nodes(schema["properties"]["spec"], "spec")
        for entry in node.get("x-kubernetes-validations", ())
        if node["type"] == "object"
    ]
    rules += [entry["message"] for entry in kind.root_rules]
    if rules:
        lines += ["", "The API server refuses a manifest that breaks one of these:", ""]
        lines += [f"- {message}" for message in dict.fromkeys(rules)]
    return "\n".join(lines) + "\n"


def _nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    yield path, node, False
    yield from _fields(node, path)


def _fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, child, name in required
        yield from _fields(child, here)
        if isinstance(child.get("items"), dict):
            yield from _fields(child["items"], f"{here}[]")


def _type(field: dict[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "object (as Kubernetes has it)"
    if values := field.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    if field.get("type") == "array":
        items = field["items"]
        return f"list of {'objects' if items.get('type') == 'object' else _type(items)}"
    return str(field.get("type", "object"))


def _meaning(field: dict[str, Any], required: bool) -> str:
    text = _cell(field.get("description", ""))
    if required:
        text += " Required."
    if "default" in field and field["default"] != {}:
        default = field["default"]
        shown = str(default).lower() if isinstance(default, bool) else default
        text += f" Default `{shown}`."
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the field and reason reference.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    options = parser.parse_args(arguments)
    text = document()
    if options.check:
        if not options.file.exists() or options.file.read_text() != text:
            print(f"{options.file} differs from the models: run `make crds`", file=sys.stderr)
            return 1
        return 0
    options.file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
