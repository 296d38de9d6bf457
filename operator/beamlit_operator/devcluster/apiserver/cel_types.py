"""The types of CEL rules, found from the schema they stand in: what could never work is refused
when a definition is created, not when the first object is.

Where the type of something is not known it is ``dyn``, which fits everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from beamlit_operator.devcluster.apiserver.cel_library import FUNCTIONS, LANGUAGE
from beamlit_operator.devcluster.apiserver.cel_names import escape
from beamlit_operator.devcluster.apiserver.cel_syntax import SyntaxProblemError, Tree, parse
from beamlit_operator.kube import Json


@dataclass(frozen=True)
class Type:
    """``item`` is what a list or map holds; ``fields`` are an object's, under escaped names."""

    name: str
    item: Type | None = None
    fields: dict[str, Type] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.name == "list":
            return f"list({self.item})"
        if self.name == "map":
            return f"map(string, {self.item})"
        return self.name


DYN: Final = Type("dyn")
BOOL: Final = Type("bool")
STRING: Final = Type("string")
INT: Final = Type("int")
_ROOT_METADATA: Final = Type("object", fields={"name": STRING, "generateName": STRING})
_FORMATS: Final = {
    "date-time": "timestamp",
    "date": "timestamp",
    "duration": "duration",
    "byte": "bytes",
}
_SCALARS: Final = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}
_NUMBERS: Final = frozenset(("int", "uint", "double"))
_ORDERED: Final = _NUMBERS | {"string", "bytes", "bool", "timestamp", "duration"}
_TYPE_NAMES: Final = frozenset(
    [
        "bool",
        "bytes",
        "double",
        "duration",
        "dyn",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "timestamp",
        "type",
        "uint",
    ]
)
_NAMESPACES: Final = frozenset(("optional", "cel", "math", "sets", "strings", "base64", "format"))
_MACROS: Final = frozenset(("all", "exists", "exists_one", "existsOne", "filter", "map"))
_RESULTS: Final = {
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches", "hasValue"), BOOL),
    **dict.fromkeys(("isURL", "isIP", "isCIDR", "isQuantity", "isSorted"), BOOL),
    **dict.fromkeys(("isGreaterThan", "isLessThan"), BOOL),
    **dict.fromkeys(("lowerAscii", "upperAscii", "trim", "replace", "substring"), STRING),
    **dict.fromkeys(("charAt", "join", "format", "find", "string"), STRING),
    **dict.fromkeys(("size", "int", "indexOf", "lastIndexOf", "compareTo"), INT),
    "bool": BOOL,
    "double": Type("double"),
    "uint": Type("uint"),
    "bytes": Type("bytes"),
    "duration": Type("duration"),
    "timestamp": Type("timestamp"),
    "split": Type("list", STRING),
    "findAll": Type("list", STRING),
}


def declared(schema: Json, *, root: bool = False) -> Type:
    """The type of a value of ``schema``."""
    if schema.get("x-kubernetes-int-or-string"):
        return DYN
    kind = schema.get("type")
    if kind == "object":
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            return Type("map", declared(extra))
        if extra is True:
            return Type("map", DYN)
        fields = {
            escape(name): declared(child)
            for name, child in (schema.get("properties") or {}).items()
        }
        if root or schema.get("x-kubernetes-embedded-resource"):
            fields |= {"apiVersion": STRING, "kind": STRING, "metadata": _ROOT_METADATA}
        return Type("object", fields=fields)
    if kind == "array":
        items = schema.get("items")
        return Type("list", declared(items) if isinstance(items, dict) else DYN)
    if kind == "string" and schema.get("format") in _FORMATS:
        return Type(_FORMATS[schema["format"]])
    return Type(_SCALARS[kind]) if kind in _SCALARS else DYN


class TypeProblemError(Exception):
    """``place`` is where in the expression, counted from 0."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def result_of(expression: str, variables: dict[str, Type]) -> Type:
    """The type of ``expression``; ``dyn`` also when it cannot be read here.

    Raises:
        TypeProblemError: it could never be evaluated.
    """
    try:
        tree = parse(expression)
    except (SyntaxProblemError, RecursionError):
        return DYN
    return _of(tree, variables)


def _of(tree: Tree, variables: dict[str, Type]) -> Type:
    match tree.kind:
        case "literal":
            return Type(tree.name)
        case "ident":
            if tree.name in variables:
                return variables[tree.name]
            if tree.name in _TYPE_NAMES:
                return Type("type")
            raise TypeProblemError(
                f"undeclared reference to '{tree.name}' (in container '')", tree.place
            )
        case "select":
            return _select(_of(tree.parts[0], variables), tree)
        case "index":
            return _index(tree, variables)
        case "list":
            found = [_of(part, variables) for part in tree.parts]
            same = bool(found) and all(one == found[0] for one in found)
            return Type("list", found[0] if same else DYN)
        case "map":
            for part in tree.parts:
                _of(part, variables)
            return DYN
        case "operator":
            return _operator(tree, [_of(part, variables) for part in tree.parts])
        case _:
            return _call(tree, variables)


def _select(base: Type, tree: Tree) -> Type:
    if base.name == "dyn":
        return DYN
    if base.name == "map":
        return base.item or DYN
    if base.fields is None:
        raise TypeProblemError(f"type '{base}' does not support field selection", tree.place)
    known = base.fields.get(tree.name)
    if known is None:
        raise TypeProblemError(f"undefined field '{tree.name}'", tree.place)
    return known


def _index(tree: Tree, variables: dict[str, Type]) -> Type:
    found = [_of(part, variables) for part in tree.parts]
    base = found[0]
    if tree.name or base.name not in ("list", "map"):
        return DYN
    wanted = INT if base.name == "list" else STRING
    if len(found) > 1 and not _fits(found[1], wanted):
        raise _no_overload("_[_]", found, tree)
    return base.item or DYN


def _fits(first: Type, second: Type) -> bool:
    if "dyn" in (first.name, second.name) or "null_type" in (first.name, second.name):
        return True
    if first.name != second.name:
        return False
    return _fits(first.item or DYN, second.item or DYN)


def _no_overload(name: str, found: list[Type], tree: Tree) -> TypeProblemError:
    applied = ", ".join(str(one) for one in found)
    return TypeProblemError(
        f"found no matching overload for '{name}' applied to '({applied})'", tree.place
    )


def _operator(tree: Tree, found: list[Type]) -> Type:
    name = tree.name
    names = [one.name for one in found]
    refused = _no_overload(name, found, tree)
    match name:
        case "_&&_" | "_||_":
            for part, one in zip(tree.parts, found, strict=True):
                if one.name not in ("bool", "dyn"):
                    why = f"expected type 'bool' but found '{one}'"
                    raise TypeProblemError(why, part.place)
            return BOOL
        case "!_" | "-_":
            allowed = ("bool",) if name == "!_" else ("int", "double")
            if names[0] not in (*allowed, "dyn"):
                raise refused
            return found[0]
        case "_?_:_":
            if names[0] not in ("bool", "dyn") or not _fits(found[1], found[2]):
                raise refused
            return found[1] if found[1] == found[2] else DYN
        case "_==_" | "_!=_":
            if not _fits(*found):
                raise refused
            return BOOL
        case "@in":
            inside = found[1].item if names[1] == "list" else STRING if names[1] == "map" else DYN
            if names[1] not in ("list", "map", "dyn") or not _fits(found[0], inside or DYN):
                raise refused
            return BOOL
        case "_<_" | "_<=_" | "_>_" | "_>=_":
            if "dyn" not in names and not (
                (names[0] == names[1] and names[0] in _ORDERED) or set(names) <= _NUMBERS
            ):
                raise refused
            return BOOL
    return _arithmetic(name, found, refused)


def _arithmetic(name: str, found: list[Type], refused: TypeProblemError) -> Type:
    first, second = found[0].name, found[1].name
    if "dyn" in (first, second):
        return DYN
    times = {"timestamp", "duration"}
    if name in ("_+_", "_-_") and {first, second} <= times:
        if first == second == "timestamp" and name == "_+_":
            raise refused
        return Type("timestamp" if first != second else "duration")
    if first == second:
        if first in _NUMBERS and not (name == "_%_" and first == "double"):
            return found[0]
        if name == "_+_" and first in ("string", "bytes"):
            return found[0]
        if name == "_+_" and first == "list":
            return found[0] if found[0] == found[1] else Type("list", DYN)
    raise refused


def _call(tree: Tree, variables: dict[str, Type]) -> Type:
    name, parts = tree.name, tree.parts
    if name == "has" and not tree.method:
        for part in parts:
            try:
                _of(part, variables)
            except TypeProblemError as error:
                place = tree.place if error.place == part.place else error.place
                raise TypeProblemError(str(error), place) from error
        return BOOL
    if tree.method and parts[0].name in _NAMESPACES and parts[0].name not in variables:
        return DYN
    binds = name in _MACROS or name.startswith("transform") or name in ("optMap", "optFlatMap")
    if tree.method and binds and len(parts) >= 3 and parts[1].kind == "ident":
        return _macro(tree, variables)
    if name not in FUNCTIONS and name not in LANGUAGE:
        raise TypeProblemError(f"undeclared reference to '{name}' (in container '')", tree.place)
    found = [_of(part, variables) for part in parts]
    if name == "size" and found and found[0].name in ("int", "uint", "double", "bool"):
        raise _no_overload("size", found, tree)
    return _RESULTS.get(name, DYN)


def _macro(tree: Tree, variables: dict[str, Type]) -> Type:
    base = _of(tree.parts[0], variables)
    named = [part for part in tree.parts[1:3] if part.kind == "ident"]
    one = len(named) == 1 or len(tree.parts) == 3
    inner = DYN
    if one and base.name == "list" and tree.name in _MACROS:
        inner = base.item or DYN
    elif one and base.name == "map" and tree.name in _MACROS:
        inner = STRING
    elif base.name not in ("list", "map", "dyn") and tree.name in _MACROS:
        raise TypeProblemError(
            f"expression of type '{base}' cannot be range of a comprehension (must be list, map, "
            "or dynamic)",
            tree.parts[0].place,
        )
    bound = [tree.parts[1]] if one else named
    scope = {**variables, **{part.name: inner for part in bound}}
    results = [_of(part, scope) for part in tree.parts[1 + len(bound) :]]
    if tree.name in ("all", "exists", "exists_one", "existsOne"):
        if results and results[-1].name not in ("bool", "dyn"):
            why = f"expected type 'bool' but found '{results[-1]}'"
            raise TypeProblemError(why, tree.parts[-1].place)
        return BOOL
    if tree.name == "filter":
        return base
    return Type("list", results[-1]) if tree.name == "map" and results else DYN
