"""Request bodies: JSON, YAML or protobuf in, plain values out, nothing that could hurt later."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import yaml

from beamlit_operator.devcluster.apiserver import protobuf
from beamlit_operator.devcluster.apiserver.errors import bad_request, unsupported_media

DEEPEST: Final = 150
"""Levels of nesting; deeper bodies are refused before anything recurses into them."""

MOST_VALUES: Final = 500_000
"""Values one YAML document may expand to, against bombs of aliases."""

JSON_TYPES: Final = ("application/json", "application/yaml", protobuf.MEDIA_TYPE)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decoded(body: bytes, media_type: str) -> Any:
    """The value in ``body``.

    Raises:
        ApiError: 400 when it is malformed, 415 for another format.
    """
    if not media_type or media_type.endswith("json"):
        return _json(body)
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if not media_type.endswith("yaml"):
        raise unsupported_media(media_type, JSON_TYPES)
    if body.lstrip()[:1] == b"{":
        return _json(body)
    return _yaml(body)


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        if b"\\u" in body or b"\\U" in body:
            # Half a surrogate pair could never be written out again.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized: invalid JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _check_depth(value)
    return value


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


def _yaml(body: bytes) -> Any:
    try:
        value = yaml.load(body, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise bad_request(f"error converting YAML to JSON: {text}") from error
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
