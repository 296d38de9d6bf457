"""Makes the CustomResourceDefinitions out of the four kinds' models.

``python -m beamlit_operator.api.crd DIRECTORY`` writes them; ``--check`` fails when the files
differ. The result is a structural schema: references are inlined, ``null`` alternatives dropped,
titles left out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beamlit_operator.api import labels
from beamlit_operator.api.environment import Environment
from beamlit_operator.api.meta import Part
from beamlit_operator.api.model import Model
from beamlit_operator.api.modeldeployment import ModelDeployment
from beamlit_operator.api.policy import Policy
from beamlit_operator.api.schema import rule, rules, with_advice

Schema = dict[str, Any]

MAX_ITEMS = 1024
"""Items of a list that states no bound of its own: every list needs one for CEL's cost limit."""

MAX_LENGTH = 4096
"""Characters of a string that states no bound of its own."""


@dataclass(frozen=True)
class Kind:
    """What a CRD says beyond its schema."""

    model: type[Part]
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    """Name, OpenAPI type and JSONPath of each printer column."""
    root_rules: tuple[dict[str, str], ...] = ()
    scale: bool = False
    wide: frozenset[str] = frozenset()
    """Columns that only ``-o wide`` shows."""

    @property
    def name(self) -> str:
        return self.model.__name__


_READY = ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status')
_REASON = ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason')
# Last, as Flux has it: however long it is, it moves no other column.
_MESSAGE = ("Message", "string", '.status.conditions[?(@.type=="Ready")].message')
_AGE = ("Age", "date", ".metadata.creationTimestamp")
_NAME_IN_URL = rule(
    "size(self.metadata.name) <= 63",
    "metadata.name is part of URLs and labels: use at most 63 characters",
    fieldPath=".metadata.name",
)

KINDS = (
    Kind(
        Model,
        "models",
        ("bm",),
        (
            ("Origin", "string", ".status.origin.uri"),
            _READY,
            _REASON,
            ("Phase", "string", ".status.phase"),
            ("Runtime", "string", ".status.suggestedRuntime.type"),
            ("Architecture", "string", ".status.facts.architecture"),
            ("GPU-Bytes", "integer", ".status.gpuMemoryBytes"),
            _AGE,
            _MESSAGE,
        ),
        (_NAME_IN_URL,),
        wide=frozenset({"Runtime", "Architecture", "GPU-Bytes", "Message"}),
    ),
    Kind(
        ModelDeployment,
        "modeldeployments",
        ("md",),
        (
            ("Model", "string", ".spec.model"),
            ("Environment", "string", ".spec.environment"),
            _READY,
            ("Phase", "string", ".status.phase"),
            ("Replicas", "integer", ".status.readyReplicas"),
            ("Rollout", "string", ".status.rollout.phase"),
            ("Weight", "integer", ".status.rollout.weight"),
            ("URL", "string", ".status.url"),
            _AGE,
            _MESSAGE,
        ),
        (
            rule(
                "size(self.metadata.name) <= 54 && "
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name becomes the name of Services: use at most 54 lower-case letters, "
                "digits and '-', starting with a letter",
                fieldPath=".metadata.name",
            ),
        ),
        scale=True,
        wide=frozenset({"Rollout", "Weight", "Message"}),
    ),
    Kind(
        Environment,
        "environments",
        ("benv",),
        (
            ("Deployments", "integer", ".status.deployments"),
            _READY,
            _REASON,
            _AGE,
        ),
        (_NAME_IN_URL,),
    ),
    Kind(
        Policy,
        "policies",
        ("bpol",),
        (("Type", "string", ".spec.type"), _READY, _REASON, _AGE),
    ),
)


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of one kind."""
    schema = structural(kind.model)
    properties = schema["properties"]
    properties["metadata"] = {"type": "object"}
    if kind.root_rules:
        # A rule may point at a field only if the schema states it; without, the API server calls
        # the place "<nil>". The name is all that may be stated of the metadata.
        properties["metadata"]["properties"] = {"name": {"type": "string", "maxLength": 253}}
    for constant in ("apiVersion", "kind"):
        properties[constant] = {"type": "string", "maxLength": 63}
    schema["required"] = ["spec"] if "spec" in schema.get("required", ()) else []
    if not schema["required"]:
        del schema["required"]
    properties["status"].pop("default", None)
    # An absent spec must be defaulted too, or the defaults inside it never appear.
    if "required" not in schema:
        properties["spec"]["default"] = {}
    if kind.root_rules:
        schema |= rules(*kind.root_rules)
    subresources: Schema = {"status": {}}
    if kind.scale:
        # Without it the paths below are absent from an object that states no serverlessConfig, and
        # its scale subresource answers 500 to a read and 422 to a write.
        parent = properties["spec"]["properties"]["serverlessConfig"]
        parent["default"] = _defaults(parent)
        subresources["scale"] = {
            "specReplicasPath": ".spec.serverlessConfig.minNumReplicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{labels.GROUP}",
            "labels": {
                labels.NAME: labels.OPERATOR_NAME,
                labels.PART_OF: labels.OPERATOR_NAME,
            },
        },
        "spec": {
            "group": labels.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": list(kind.short_names),
                "categories": [labels.CATEGORY],
            },
            "versions": [
                {
                    "name": labels.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path}
                        | ({"priority": 1} if name in kind.wide else {})
                        for name, type_, path in kind.columns
                    ],
                }
            ],
        },
    }


def structural(model: type[Part]) -> Schema:
    """The structural schema of a pydantic model."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    definitions = document.pop("$defs", {})
    return _structural(document, definitions)


def _structural(schema: Schema, definitions: Schema) -> Schema:
    if reference := schema.get("$ref"):
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[reference.rsplit("/", 1)[1]], **own}
    if alternatives := schema.get("anyOf"):
        (only,) = (entry for entry in alternatives if entry.get("type") != "null")
        own = {key: value for key, value in schema.items() if key != "anyOf"}
        return _structural({**only, **own}, definitions)
    out = {
        key: value
        for key, value in schema.items()
        if key not in ("title", "const", "properties", "items", "additionalProperties", "default")
    }
    out = with_advice(out)
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if out.get("x-kubernetes-int-or-string"):
        for key in ("type", "maxLength"):
            out.pop(key, None)
        if schema.get("default") is not None:
            out["default"] = schema["default"]
        return out
    if schema.get("default") not in (None, (), [], {}):
        out["default"] = schema["default"]
    if "properties" in schema:
        out["properties"] = {
            name: _structural(value, definitions) for name, value in schema["properties"].items()
        }
    if "items" in schema:
        out["items"] = _structural(schema["items"], definitions)
        out.setdefault("maxItems", MAX_ITEMS)
    if isinstance(schema.get("additionalProperties"), dict) and "properties" not in schema:
        out["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
        out.setdefault("maxProperties", 256)
    if out.get("type") == "string" and "enum" not in out and out.get("format") != "date-time":
        out.setdefault("maxLength", MAX_LENGTH)
    return _with_default_fallback(out)


def _with_default_fallback(schema: Schema) -> Schema:
    """A required field that has a default would refuse what the default could fill."""
    required = [
        name
        for name in schema.get("required", ())
        if "default" not in schema["properties"].get(name, {})
    ]
    if required:
        schema["required"] = required
    else:
        schema.pop("required", None)
    return schema


def _defaults(schema: Schema) -> Schema:
    """The object that the fields' defaults make.

    A default must satisfy the rules beside it as it stands, before the defaults inside it are
    filled in: ``{}`` is refused where a rule reads a field.
    """
    return {
        name: child["default"] for name, child in schema["properties"].items() if "default" in child
    }


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: readers of CRDs need not know YAML's anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """The CRD as the text of its file."""
    head = "# Generated from operator/beamlit_operator/api by `make crds`. Do not edit.\n"
    return head + yaml.dump(
        crd(kind), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the CustomResourceDefinitions.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    options = parser.parse_args(arguments)
    stale = []
    for kind in KINDS:
        path = options.directory / f"{labels.GROUP}_{kind.plural}.yaml"
        text = render(kind)
        if options.check:
            if not path.exists() or path.read_text() != text:
                stale.append(path)
        else:
            path.write_text(text)
    for path in stale:
        print(f"{path} differs from the models: run `make crds`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
