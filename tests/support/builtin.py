"""Kubernetes' own schemas, strict, compiled once for each kind, so that many can be checked."""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

import jsonschema_rs

VERSION = "v1.37.0"


def check(body: dict[str, Any]) -> None:
    """Raises jsonschema_rs.ValidationError where an API server would refuse a field or its type."""
    validator(body["apiVersion"], body["kind"]).validate(body)


@functools.cache
def validator(api_version: str, kind: str) -> Any:
    # rbac.authorization.k8s.io/v1 is in the file of rbac-v1.
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads(_text(f"{kind.lower()}-{group}.json"))
    schema["$defs"] = _definitions()
    schema.pop("$id", None)
    return jsonschema_rs.validator_for(schema)


@functools.cache
def _definitions() -> Any:
    return json.loads(_text("_definitions.json"))["$defs"]


def _text(name: str) -> str:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (folder / f"{VERSION}-local-strict" / name).read_text()
    return text.replace("/api/_definitions.json#", "#")
