"""Whether definitions may follow earlier ones: whatever was stored or sent must stay valid and keep
its meaning, for an upgrade changes no object and a rollback finds those of the newer version.

| change from the earlier definition                                | additive?                    |
|-------------------------------------------------------------------|------------------------------|
| a new kind, version, column, description, optional field          | yes                          |
| a new required field                                              | only with a default          |
| a kind, version, subresource or field removed; a version unserved | no: what is stored is lost   |
| another scope, plural, storage version, list type or list key     | no: stored objects do not    |
|                                                                   | fit                          |
| another type, format or pattern; a smaller range; null forbidden  | no: what was valid is        |
|                                                                   | refused                      |
| an enum that is new or lost a value                               | no: the same                 |
| a new CEL rule or a changed one on a field that was there before  | no: the same, unless it is   |
|                                                                   | what the pattern was         |
| another default                                                   | no: the same text means      |
|                                                                   | something else               |

``python -m beamlit_operator.api.compatibility crds --after chart.tgz`` prints a sentence for each
change that is not, and fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from beamlit_operator.api.schema import matching

Schema = Mapping[str, Any]

_CANARY = "0.1.0 refused every canary with a condition, so nothing runs by what is refused now"
_NEW_FIELDS = "it refuses only what has two fields of which 0.1.0 knew one at most"
_KINDS = "the rule that counts the kinds of origins lets through all that it did, and new kinds"
ACCEPTED: Mapping[tuple[str, str], str] = {
    ("ModelDeployment v1alpha1: spec.rollout", "a rule was added or changed"): _CANARY,
    ("Model v1alpha1: spec.origin.s3", "a rule was added or changed"): _NEW_FIELDS,
    ("Model v1alpha1: spec.origin", "a rule was added or changed"): _KINDS,
    ("Model v1alpha1: spec", "a rule was added or changed"): _NEW_FIELDS,
}
"""Changes that are made all the same, by the beginnings of their sentences' two halves: why nobody
is hurt. To be emptied with the release that they were made after."""

_LOWEST = {
    "minimum": "smallest value",
    "minLength": "shortest length",
    "minItems": "fewest items",
    "minProperties": "fewest entries",
}
_HIGHEST = {
    "maximum": "largest value",
    "maxLength": "longest length",
    "maxItems": "most items",
    "maxProperties": "most entries",
}
_EXACT = {
    "type": "type",
    "format": "format",
    "pattern": "pattern",
    "default": "default",
    "multipleOf": "step",
    "exclusiveMinimum": "open lower end",
    "exclusiveMaximum": "open upper end",
    "uniqueItems": "rule of unique items",
    "allOf": "allOf",
    "anyOf": "anyOf",
    "oneOf": "oneOf",
    "not": "not",
    "x-kubernetes-list-type": "list type",
    "x-kubernetes-list-map-keys": "list key",
    "x-kubernetes-map-type": "map type",
}
_FREEDOMS = {
    "nullable": "may no longer be null",
    "x-kubernetes-int-or-string": "may no longer be a number as well as a text",
    "x-kubernetes-preserve-unknown-fields": "no longer keeps fields without a definition",
}


def breaks(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[str]:
    """A sentence for each change that is not additive. Definitions by their names."""
    found: list[str] = []
    for name, before in old.items():
        if name not in new:
            found.append(f"{name}: the definition was removed")
            continue
        found += _definition(before["spec"]["names"]["kind"], before["spec"], new[name]["spec"])
    return [sentence for sentence in found if not _is_accepted(sentence)]


def _is_accepted(sentence: str) -> bool:
    return any(sentence.startswith(f"{where}: {what}") for where, what in ACCEPTED)


def _definition(kind: str, old: Schema, new: Schema) -> Iterator[str]:
    if old["scope"] != new["scope"]:
        yield f"{kind}: the scope was {old['scope']} and is {new['scope']}"
    for name in ("kind", "plural"):
        if old["names"][name] != new["names"][name]:
            yield f"{kind}: the {name} was {old['names'][name]} and is {new['names'][name]}"
    lost = {*old["names"].get("shortNames", ())} - {*new["names"].get("shortNames", ())}
    for name in sorted(lost):
        yield f"{kind}: the short name {name} was removed"
    versions = {version["name"]: version for version in new["versions"]}
    for before in old["versions"]:
        where = f"{kind} {before['name']}"
        after = versions.get(before["name"])
        if after is None or (before["served"] and not after["served"]):
            yield f"{where}: the version is not served any more"
            continue
        if before["storage"] and not after["storage"]:
            yield f"{where}: objects are stored in another version: no older operator reads them"
        for name, value in (before.get("subresources") or {}).items():
            if (after.get("subresources") or {}).get(name) != value:
                yield f"{where}: the subresource {name} was removed or changed"
        yield from _schema(where, before["schema"]["openAPIV3Schema"], _root(after))


def _root(version: Schema) -> Schema:
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def _schema(where: str, old: Schema, new: Schema) -> Iterator[str]:
    yield from _bounds(where, old, new)
    for keyword, said in _EXACT.items():
        if keyword in new and keyword not in old:
            # A default for what had none changes what its absence means.
            yield f"{where}: a {said} was added: {_text(new[keyword])}"
        elif keyword in old and old[keyword] != new.get(keyword):
            after = _text(new[keyword]) if keyword in new else "none"
            if keyword in ("type", "default") or keyword.startswith("x-") or keyword in new:
                yield f"{where}: the {said} was {_text(old[keyword])} and is {after}"
    for keyword, said in _FREEDOMS.items():
        if old.get(keyword) and not new.get(keyword):
            yield f"{where}: {said}"
    yield from _values(where, old, new)
    known = {rule["rule"] for rule in old.get("x-kubernetes-validations") or ()}
    if "pattern" in old:
        known.add(matching(old["pattern"]))
    for rule in new.get("x-kubernetes-validations") or ():
        if rule["rule"] not in known:
            yield f"{where}: a rule was added or changed: {rule['rule']}"
    yield from _inside(where, old, new)


def _bounds(where: str, old: Schema, new: Schema) -> Iterator[str]:
    directions: tuple[tuple[Mapping[str, str], Callable[[Any, Any], bool]], ...] = (
        (_LOWEST, lambda before, after: after > before),
        (_HIGHEST, lambda before, after: after < before),
    )
    for table, is_narrower in directions:
        for keyword, said in table.items():
            before, after = old.get(keyword), new.get(keyword)
            if after is not None and (before is None or is_narrower(before, after)):
                was = "none" if before is None else before
                yield f"{where}: the {said} was {was} and is {after}"


def _values(where: str, old: Schema, new: Schema) -> Iterator[str]:
    if "enum" not in new:
        return
    if "enum" not in old:
        yield f"{where}: only certain values are allowed now: {_text(new['enum'])}"
        return
    for value in old["enum"]:
        if value not in new["enum"]:
            yield f"{where}: the value {_text(value)} was removed"


def _inside(where: str, old: Schema, new: Schema) -> Iterator[str]:
    properties: Schema = new.get("properties") or {}
    for name, before in (old.get("properties") or {}).items():
        if name in properties:
            yield from _schema(_below(where, name), before, properties[name])
        else:
            yield f"{_below(where, name)}: the field was removed"
    for name in sorted({*(new.get("required") or ())} - {*(old.get("required") or ())}):
        if "default" not in properties.get(name, {}):
            yield f"{_below(where, name)}: the field is required now, and stored objects lack it"
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        before, after = old.get(keyword), new.get(keyword)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _schema(where + mark, before, after)
        elif before and not after:
            yield f"{where}{mark}: what was in it is no longer kept"


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if ": " in where else f"{where}: {name}"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def read(place: Path) -> dict[str, Schema]:
    """The definitions in a folder, or in a packed chart, by name."""
    if place.is_dir():
        texts = [file.read_text() for file in sorted(place.glob("*.yaml"))]
    else:
        with tarfile.open(place) as archive:
            members = [each for each in archive if "/crds/" in each.name and each.isfile()]
            files = [archive.extractfile(each) for each in members]
            texts = [file.read().decode() for file in files if file is not None]
    found = {item["metadata"]["name"]: item for text in texts for item in yaml.safe_load_all(text)}
    if not found:
        raise FileNotFoundError(f"{place}: no definitions are in it")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a change is not additive."""
    parser = argparse.ArgumentParser(prog="python -m beamlit_operator.api.compatibility")
    parser.add_argument("definitions", type=Path, help="a folder of definitions, or a packed chart")
    parser.add_argument(
        "--after", type=Path, nargs="+", required=True, help="the earlier ones, each like these"
    )
    given = parser.parse_args(arguments)
    found = [
        f"{earlier}: {sentence}"
        for earlier in given.after
        for sentence in breaks(read(earlier), read(given.definitions))
    ]
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
