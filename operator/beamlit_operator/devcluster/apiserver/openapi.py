"""OpenAPI documents: what ``kubectl explain`` reads, and what ``kubectl apply`` looks for."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.schemas import (
    KUBERNETES_VERSION,
    META,
    builtin_defaults,
    definitions,
)
from beamlit_operator.devcluster.apiserver.served import Registry, Served
from beamlit_operator.devcluster.apiserver.store import encode
from beamlit_operator.kube import Json

_REF: Final = "#/$defs/"
_INFO: Final = {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}"}

_PARAMETERS: Final = [
    {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}
    for name, kind in (
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("force", "boolean"),
    )
]


class Documents:
    """The documents of a registry, made when first asked for and again after it changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._texts: dict[str, bytes] = {}

    def _fresh(self) -> dict[str, bytes]:
        if self._generation != self._registry.generation:
            self._texts.clear()
            self._generation = self._registry.generation
        return self._texts

    def _paths(self) -> list[str]:
        found = {_path(served) for served in self._registry}
        return sorted(found)

    def index(self) -> Json:
        """``/openapi/v3``."""
        paths: Json = {}
        for path in self._paths():
            mark = hashlib.sha256(f"{path} {self._registry.generation}".encode()).hexdigest()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={mark[:32].upper()}"}
        return {"paths": paths}

    def of(self, path: str) -> bytes | None:
        """``/openapi/v3/{path}``; None when nothing is served there."""
        texts = self._fresh()
        if path not in texts:
            served = [s for s in self._registry if _path(s) == path]
            if not served:
                return None
            texts[path] = encode(_document(served))
        return texts[path]

    def v2(self) -> bytes:
        """``/openapi/v2``: the definitions, without paths."""
        texts = self._fresh()
        if "v2" not in texts:
            schemas: Json = {}
            for served in self._registry:
                _add(served, schemas, "#/definitions/")
            texts["v2"] = encode(
                {"swagger": "2.0", "info": _INFO, "paths": {}, "definitions": schemas}
            )
        return texts["v2"]


V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def v2_protobuf() -> bytes:
    """``/openapi/v2`` as kubectl asks for it when it finds a kind nowhere in version 3.

    It has no definitions: for what it does not describe, kubectl uses its own knowledge and leaves
    validation to the server.
    """

    def text(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    info = text(1, _INFO["title"].encode()) + text(2, _INFO["version"].encode())
    return text(1, b"2.0") + text(2, info) + text(8, b"")


def _path(served: Served) -> str:
    return f"apis/{served.group}/{served.version}" if served.group else f"api/{served.version}"


def _document(served: list[Served]) -> Json:
    schemas: Json = {}
    paths: Json = {}
    for item in served:
        name = _add(item, schemas, "#/components/schemas/")
        _operations(item, name, paths)
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _add(served: Served, schemas: Json, prefix: str) -> str:
    """Adds the type and all that it refers to; returns its name."""
    if not served.custom:
        _builtin(served.definition, schemas, prefix)
        return served.definition
    group = ".".join(reversed(served.group.split(".")))
    name = f"{group}.{served.version}.{served.kind}"
    schema = dict(served.schema or {"type": "object"})
    _builtin(META + "ObjectMeta", schemas, prefix)
    schema["properties"] = {
        **{key: _cleaned(value) for key, value in (schema.get("properties") or {}).items()},
        "apiVersion": _described("apiVersion"),
        "kind": _described("kind"),
        "metadata": {"allOf": [{"$ref": prefix + META + "ObjectMeta"}]},
    }
    schema.pop("x-kubernetes-validations", None)
    schema["x-kubernetes-group-version-kind"] = [
        {"group": served.group, "version": served.version, "kind": served.kind}
    ]
    schemas[name] = schema
    return name


def _described(name: str) -> Json:
    text = definitions()["io.k8s.api.core.v1.ConfigMap"]["properties"][name]["description"]
    return {"type": "string", "description": text}


def _cleaned(schema: Any) -> Any:
    """Without CEL rules, which OpenAPI readers have no use for."""
    if isinstance(schema, dict):
        return {
            key: _cleaned(value)
            for key, value in schema.items()
            if key != "x-kubernetes-validations"
        }
    if isinstance(schema, list):
        return [_cleaned(value) for value in schema]
    return schema


def _builtin(name: str, schemas: Json, prefix: str) -> None:
    if name in schemas:
        return
    schemas[name] = {}
    schema = _converted(definitions()[name], schemas, prefix)
    for ending, values in builtin_defaults().items():
        if name.endswith("." + ending):
            for field, value in values.items():
                if value != {}:
                    schema["properties"][field] = {**schema["properties"][field], "default": value}
    schemas[name] = schema


def _converted(source: Any, schemas: Json, prefix: str) -> Any:
    """The package's JSON Schema as Kubernetes publishes it: plain types, its kind of references."""
    if isinstance(source, list):
        return [_converted(item, schemas, prefix) for item in source]
    if not isinstance(source, dict):
        return source
    result: Json = {}
    for key, value in source.items():
        if key == "$ref":
            target = value.removeprefix(_REF)
            _builtin(target, schemas, prefix)
            result["allOf"] = [{"$ref": prefix + target}]
        elif key == "type" and isinstance(value, list):
            result["type"] = next(item for item in value if item != "null")
        elif key == "properties":
            result[key] = {n: _converted(child, schemas, prefix) for n, child in value.items()}
        elif key != "enum":
            result[key] = _converted(value, schemas, prefix)
    if "oneOf" in result:
        # IntOrString and Quantity.
        result.pop("oneOf")
        result["type"] = "string"
        result.setdefault("format", "int-or-string")
    return result


def _operations(served: Served, name: str, paths: Json) -> None:
    base = f"/{_path(served)}/"
    if served.namespaced:
        base += "namespaces/{namespace}/"
    kind = {"group": served.group, "version": served.version, "kind": served.kind}
    reference = {"$ref": f"#/components/schemas/{name}"}
    content = {"application/json": {"schema": reference}}
    answer = {"200": {"description": "OK", "content": content}}

    def operation(action: str, *, body: bool) -> Json:
        found: Json = {
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }
        if body:
            found["requestBody"] = {"content": content}
            found["parameters"] = _PARAMETERS
        return found

    in_path = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    home: list[Json] = []
    if served.namespaced:
        home = [{"name": "namespace", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths[base + served.plural] = {
        "get": operation("list", body=False),
        "post": operation("post", body=True),
        "delete": operation("deletecollection", body=False),
        "parameters": home,
    }
    single = {
        "get": operation("get", body=False),
        "put": operation("put", body=True),
        "patch": operation("patch", body=True),
        "parameters": [*in_path, *home],
    }
    paths[f"{base}{served.plural}/{{name}}"] = {**single, "delete": operation("delete", body=False)}
    for subresource in served.subresources:
        if subresource == "status":
            paths[f"{base}{served.plural}/{{name}}/status"] = single


def root_paths(registry: Registry) -> Json:
    """``/``."""
    found = {"/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz"}
    found |= {"/version"} | {"/" + _path(served) for served in registry}
    return {"paths": sorted(found)}
