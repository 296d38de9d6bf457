"""Request bodies: JSON, YAML or protobuf in, plain values out, nothing that could hurt later."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from beamlit_operator.devcluster.apiserver import protobuf
from beamlit_operator.devcluster.apiserver.errors import bad_request, unsupported_media
from beamlit_operator.kube import Json

DEEPEST: Final = 150
"""Levels of nesting; deeper bodies are refused before anything recurses into them."""

MOST_VALUES: Final = 500_000
"""Values one YAML document may expand to, against bombs of aliases."""

JSON_TYPES: Final = ("application/json", "application/yaml", protobuf.MEDIA_TYPE)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date stays text, a key that is given twice is noted."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.doubled: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    line = key.start_mark.line + 1
                    self.doubled.append(f'line {line}: key "{key.value}" already set in map')
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decoded(body: bytes, media_type: str, *, doubled: list[str] | None = None) -> Any:
    """The value in ``body``; ``doubled``, if given, takes a sentence for every key given twice.

    Raises:
        ApiError: 400 when it is malformed, 415 for another format.
    """
    if not media_type or media_type.endswith("json"):
        return _json(body, doubled)
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if not media_type.endswith("yaml"):
        raise unsupported_media(media_type, JSON_TYPES)
    if body.lstrip()[:1] == b"{":
        return _json(body, doubled)
    return _yaml(body, doubled)


def _json(body: bytes, doubled: list[str] | None) -> Any:
    twice = False

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        nonlocal twice
        found = dict(pairs)
        twice = twice or len(found) != len(pairs)
        return found

    try:
        if b"\\ud" in body or b"\\uD" in body:
            body = _whole(body)
        hook = unique if doubled is not None else None
        value = json.loads(
            body,
            parse_constant=_refuse_constant,
            parse_float=_number,
            object_pairs_hook=hook,
        )
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized: invalid JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _check_depth(value)
    if twice and doubled is not None:
        pairs = json.loads(body, object_pairs_hook=_Pairs)
        doubled += [f'duplicate field "{path}"' for path in _doubled_paths(pairs, "")]
    return value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys."""


def _doubled_paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, entry in value:
            where = f"{path}.{name}" if path else name
            if name in seen:
                yield where
            seen.add(name)
            yield from _doubled_paths(entry, where)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _doubled_paths(entry, f"{path}[{index}]")


_ESCAPES: Final = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def _whole(body: bytes) -> bytes:
    """``body`` with U+FFFD for every half of a surrogate pair, as Go reads it."""
    return _ESCAPES.sub(lambda found: b"\\ufffd" if len(found[0]) == 6 else found[0], body)


def _number(text: str) -> int | float:
    """80.0 is the integer 80, as Go writes it again."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise bad_request(f"the body is nested more than {DEEPEST} levels deep")
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]


def _yaml(body: bytes, doubled: list[str] | None) -> Any:
    try:
        loader = _Loader(body)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise bad_request(f"error converting YAML to JSON: {text}") from error
    if doubled is not None:
        doubled += loader.doubled
    return _plain(value, [0], 0)


def _plain(value: Any, count: list[int], depth: int) -> Any:
    count[0] += 1
    if count[0] > MOST_VALUES:
        raise bad_request(f"the YAML document expands to more than {MOST_VALUES} values")
    if depth > DEEPEST:
        raise bad_request(f"the body is nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        return {_key(key): _plain(entry, count, depth + 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry, count, depth + 1) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise bad_request(f"{value} is not JSON")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise bad_request(f"a YAML value of type {type(value).__name__} cannot be JSON")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (str, int, float)):
        return str(key)
    raise bad_request(f"a YAML key of type {type(key).__name__} cannot be JSON")
