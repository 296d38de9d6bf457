"""One schema model for built-in types and custom resources.

A :class:`Node` answers what pruning, defaulting, strategic merge and server-side apply ask about a
field. Built-in types come from the OpenAPI definitions that ``kubernetes-validate`` ships, custom
ones from their CustomResourceDefinition.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from beamlit_operator.kube import Json

KUBERNETES_VERSION: Final = "1.36.0"
"""The release whose built-in types are served."""

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_REF: Final = "#/$defs/"


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""Stands for "no value", where None would be JSON's null."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``x-kubernetes-validations``."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = "FieldValueInvalid"
    field_path: str = ""
    optional_old_self: bool | None = None


@dataclass(slots=True, eq=False)
class Node:
    """What is known about one field; shared between all places that use it.

    Attributes:
        type: JSON's name of the type, empty when anything goes.
        properties: the declared fields of an object.
        extra: the schema of undeclared fields (``additionalProperties``), None when there is none.
        preserve: undeclared fields are kept.
        atomic: the list or object is owned and replaced as a whole.
        keys: the identifying fields of a list of type ``map``.
        unique: the list is a set.
        merge_key: the identifying field for strategic merge, empty when lists are replaced.
        merges: strategic merge merges this list or object instead of replacing it.
        retains: strategic merge drops the union's fields that the patch does not name.
        has_defaults: something at or below has a default.
        has_rules: something at or below has CEL rules.
    """

    type: str = ""
    properties: dict[str, Node] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    extra: Node | None = None
    items: Node | None = None
    preserve: bool = False
    nullable: bool = False
    int_or_string: bool = False
    embedded: bool = False
    default: Any = MISSING
    atomic: bool = False
    keys: tuple[str, ...] = ()
    unique: bool = False
    merge_key: str = ""
    merges: bool = False
    retains: bool = False
    rules: tuple[Rule, ...] = ()
    has_defaults: bool = False
    has_rules: bool = False

    def child(self, name: str) -> Node | None:
        """The schema of the field ``name``, None when undeclared."""
        return self.properties.get(name) or self.extra

    def key_of(self, item: Json) -> tuple[Any, ...]:
        """The identity of an item of a list map; an absent key counts with its default."""
        assert self.items is not None
        found = []
        for name in self.keys:
            value = item.get(name, MISSING)
            if value is MISSING:
                declared = self.items.properties.get(name)
                value = (
                    None if declared is None or declared.default is MISSING else declared.default
                )
            found.append(value)
        return tuple(found)


@functools.cache
def definitions() -> dict[str, Json]:
    """The OpenAPI definitions of :data:`KUBERNETES_VERSION`, by full name."""
    root = importlib.resources.files("kubernetes_validate")
    file = root / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}-local" / "_definitions.json"
    found: dict[str, Json] = json.loads(file.read_text("utf-8"))["$defs"]
    return found


@functools.cache
def builtin_defaults() -> dict[str, Json]:
    """Constant defaults of built-in types: definition name (its end) → field → value."""
    text = importlib.resources.files(__package__).joinpath("defaults.yaml").read_text("utf-8")
    loaded: dict[str, Json] = yaml.safe_load(text)
    return loaded


_builtin_nodes: dict[str, Node] = {}


def builtin(name: str) -> Node:
    """The schema of the built-in definition ``name``; definitions may refer to themselves."""
    known = _builtin_nodes.get(name)
    if known is not None:
        return known
    node = _builtin_nodes[name] = Node()
    source = definitions()[name]
    built = _node(source, defaults=_defaults_of(name))
    for attribute in Node.__slots__:
        setattr(node, attribute, getattr(built, attribute))
    if name.endswith(("intstr.IntOrString", "resource.Quantity")):
        node.int_or_string = True
    elif name.endswith(("JSONSchemaProps", ".JSON", ".FieldsV1", "runtime.RawExtension")):
        # These are opaque here: what they hold is checked by whoever uses it.
        node.properties, node.extra, node.items = {}, None, None
        node.type, node.preserve, node.atomic = "", True, True
    elif node.type == "object" and not node.properties and node.extra is None:
        node.preserve = True
    return node


def _defaults_of(name: str) -> Json:
    for ending, values in builtin_defaults().items():
        if name.endswith("." + ending):
            return values
    return {}


def _node(source: Json, *, defaults: Json | None = None) -> Node:
    reference = source.get("$ref")
    if reference is not None:
        target = builtin(reference.removeprefix(_REF))
        changes = _list_traits(source)
        return replace(target, **changes) if changes else target
    node = Node(type=_type_of(source), required=tuple(source.get("required") or ()))
    for name, child in (source.get("properties") or {}).items():
        node.properties[name] = _node(child)
    for name, value in (defaults or {}).items():
        node.properties[name] = replace(node.properties[name], default=value, has_defaults=True)
    extra = source.get("additionalProperties")
    if isinstance(extra, dict):
        node.extra = _node(extra)
    if isinstance(source.get("items"), dict):
        node.items = _node(source["items"])
    for attribute, value in _list_traits(source).items():
        setattr(node, attribute, value)
    if node.type == "array" and not (node.keys or node.unique):
        node.atomic = True
    # Built-in types may be recursive, so the walkers do not ask whether there is more below.
    node.has_defaults = node.type in ("object", "array")
    return node


def _type_of(source: Json) -> str:
    kind = source.get("type")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), "")
    return kind or ""


def _list_traits(source: Json) -> dict[str, Any]:
    traits: dict[str, Any] = {}
    if source.get("x-kubernetes-map-type") == "atomic":
        traits["atomic"] = True
    list_type = source.get("x-kubernetes-list-type")
    if list_type == "map":
        traits["keys"] = tuple(source["x-kubernetes-list-map-keys"])
    elif list_type == "set":
        traits["unique"] = True
    strategies = (source.get("x-kubernetes-patch-strategy") or "").split(",")
    if "merge" in strategies:
        traits["merges"] = True
        traits["merge_key"] = source.get("x-kubernetes-patch-merge-key", "")
    if "retainKeys" in strategies:
        traits["retains"] = True
    return traits


def custom(source: Json) -> Node:
    """The schema of a (structural) ``openAPIV3Schema``."""
    node = Node(
        type=source.get("type", ""),
        required=tuple(source.get("required") or ()),
        preserve=bool(source.get("x-kubernetes-preserve-unknown-fields")),
        nullable=bool(source.get("nullable")),
        int_or_string=bool(source.get("x-kubernetes-int-or-string")),
        embedded=bool(source.get("x-kubernetes-embedded-resource")),
        default=MISSING if source.get("default") is None else source["default"],
        rules=tuple(_rule(rule) for rule in source.get("x-kubernetes-validations") or ()),
    )
    for name, child in (source.get("properties") or {}).items():
        node.properties[name] = custom(child)
    extra = source.get("additionalProperties")
    if isinstance(extra, dict):
        node.extra = custom(extra)
    elif extra is True:
        node.preserve = True
    if isinstance(source.get("items"), dict):
        node.items = custom(source["items"])
    for attribute, value in _list_traits(source).items():
        setattr(node, attribute, value)
    if node.type == "array" and not (node.keys or node.unique):
        node.atomic = True
    below = [*node.properties.values(), *(n for n in (node.extra, node.items) if n is not None)]
    node.has_defaults = node.default is not MISSING or any(n.has_defaults for n in below)
    node.has_rules = bool(node.rules) or any(n.has_rules for n in below)
    return node


def _rule(source: Json) -> Rule:
    return Rule(
        rule=source["rule"],
        message=source.get("message", ""),
        message_expression=source.get("messageExpression", ""),
        reason=source.get("reason") or "FieldValueInvalid",
        field_path=source.get("fieldPath", ""),
        optional_old_self=source.get("optionalOldSelf"),
    )


def custom_root(source: Json | None) -> Node:
    """The schema of a custom resource: its own, with the common fields as Kubernetes has them."""
    node = custom(source) if source else Node(type="object", preserve=True)
    node.properties = {
        **node.properties,
        "apiVersion": Node(type="string"),
        "kind": Node(type="string"),
        "metadata": builtin(META + "ObjectMeta"),
    }
    return node
