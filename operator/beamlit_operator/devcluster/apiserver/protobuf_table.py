"""Makes ``protobuf_fields.txt`` from Kubernetes' published ``generated.proto`` files.

Run as ``python -m beamlit_operator.devcluster.apiserver.protobuf_table FILE... > TABLE`` with the
files of kubernetes/api and kubernetes/apimachinery of the served release. Field numbers never
change, so the table only has to be made again for new fields.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

_SCALARS = {
    "string": "s",
    "bytes": "y",
    "bool": "b",
    **dict.fromkeys(("int32", "int64", "uint32", "uint64"), "i"),
    "double": "d",
}
_FIELD = re.compile(
    r"(?P<label>optional|repeated)?\s*"
    r"(?:map<string,\s*(?P<value>[\w.]+)>|(?P<type>[\w.]+))\s+(?P<name>\w+)\s*=\s*(?P<number>\d+);"
)


def messages(proto: str) -> dict[str, list[str]]:
    """The messages of one file: full name → its fields as ``number:name:type``.

    A type is a letter for a scalar or a full name; ``*`` before it means repeated, ``%`` a map of
    strings to it.
    """
    package = re.search(r"^package ([\w.]+);", proto, re.M)
    assert package is not None, "the file has no package"
    home = ".".join(["io", *reversed_prefix(package[1])])
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in proto.splitlines():
        text = line.strip()
        if start := re.match(r"message (\w+) \{", text):
            current = found.setdefault(f"{home}.{start[1]}", [])
        elif text == "}":
            current = None
        elif current is not None and (field := _FIELD.match(text)):
            kind = _type(field["value"] or field["type"], home)
            mark = "%" if field["value"] else "*" if field["label"] == "repeated" else ""
            current.append(f"{field['number']}:{field['name']}:{mark}{kind}")
    return found


def reversed_prefix(package: str) -> list[str]:
    """``k8s.io.api.core.v1`` is called ``io.k8s.api.core.v1`` in OpenAPI."""
    steps = package.lstrip(".").split(".")
    return ["k8s", *steps[2:]] if steps[:2] == ["k8s", "io"] else steps


def _type(name: str, home: str) -> str:
    if name in _SCALARS:
        return _SCALARS[name]
    if "." not in name:
        return f"{home}.{name}"
    return ".".join(["io", *reversed_prefix(name)])


def table(protos: Iterable[str], wanted: Iterable[str]) -> str:
    """The table of the messages reachable from ``wanted``, one a line, sorted."""
    known: dict[str, list[str]] = {}
    for proto in protos:
        known.update(messages(proto))
    reached: set[str] = set()
    rest = [name for name in wanted if name in known]
    while rest:
        name = rest.pop()
        if name in reached:
            continue
        reached.add(name)
        types = [field.split(":")[2].lstrip("*%") for field in known[name]]
        rest += [kind for kind in types if kind in known]
    return "".join(f"{name} {' '.join(known[name])}\n" for name in sorted(reached))


def main(files: list[str]) -> None:
    """Writes the table of everything the API server accepts to standard output."""
    from beamlit_operator.devcluster.apiserver.builtin_types import builtin_types
    from beamlit_operator.devcluster.apiserver.protobuf import OTHERS

    wanted = [served.definition for served in builtin_types()] + list(OTHERS.values())
    sys.stdout.write(table((Path(name).read_text() for name in files), wanted))


if __name__ == "__main__":
    main(sys.argv[1:])
