"""CEL rules (``x-kubernetes-validations``): compiled once, evaluated on every write that matters.

As in Kubernetes, a rule that uses ``oldSelf`` runs on updates only, and a rule that does not is
skipped where the value did not change (ratcheting), so that a new rule never blocks the status
update of an old object.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from beamlit_operator.devcluster.apiserver.cel_library import FUNCTIONS, LANGUAGE
from beamlit_operator.devcluster.apiserver.cel_names import escape
from beamlit_operator.devcluster.apiserver.cel_native import cel
from beamlit_operator.devcluster.apiserver.errors import Cause, show
from beamlit_operator.devcluster.apiserver.schemas import MISSING, Node, Rule
from beamlit_operator.kube import Json

_MESSAGES = {
    "FieldValueInvalid": "Invalid value: {message}",
    "FieldValueForbidden": "Forbidden: {message}",
    "FieldValueRequired": "Required value: {message}",
    "FieldValueDuplicate": "Duplicate value",
}


class RuleError(Exception):
    """A rule that does not compile."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression."""

    program: cel.Program
    transition: bool
    """Whether it uses ``oldSelf``."""


_variables: dict[str, Any] = {}


def _context() -> cel.Context:
    context = cel.Context()
    for name, function in FUNCTIONS.items():
        context.add_function(name, function)
    # A resolver instead of variables: changing variables would rebuild the environment each time.
    context.set_variable_resolver(_variables.get)
    return context


_CONTEXT = _context()


@functools.lru_cache(maxsize=4096)
def compiled(expression: str) -> Program:
    """The program of ``expression``.

    Raises:
        RuleError: it does not parse, or uses a name that does not exist.
    """
    try:
        program = cel.compile(expression)
    except ValueError as error:
        raise RuleError(f"compilation failed: {str(error).splitlines()[0]}") from error
    for name in program.functions():
        if re.match(r"[A-Za-z]", name) and name not in FUNCTIONS and name not in LANGUAGE:
            raise RuleError(
                f"compilation failed: undeclared reference to {name!r}, or a function that the "
                "embedded cluster does not have"
            )
    variables = set(program.variables())
    return Program(program, "oldSelf" in variables)


def rule_causes(item: Json, old: Json | None, root: Node) -> list[Cause]:
    """The rules that ``item`` breaks; ``old`` is what it replaces, None on create."""
    if not root.has_rules:
        return []
    causes: list[Cause] = []
    _walk(item, MISSING if old is None else old, root, "", causes)
    return causes


def _walk(value: Any, old: Any, node: Node, path: str, causes: list[Cause]) -> None:
    if value is None:
        return
    unchanged = old is not MISSING and (value is old or value == old)
    for rule in node.rules:
        _evaluate(rule, value, old, path, causes, unchanged=unchanged, node=node)
    if isinstance(value, dict):
        for name, entry in value.items():
            child = node.child(name)
            if child is not None and child.has_rules:
                before = old.get(name, MISSING) if isinstance(old, dict) else MISSING
                declared = name in node.properties
                step = (f"{path}.{name}" if path else name) if declared else f"{path}[{name}]"
                _walk(entry, before, child, step, causes)
    elif isinstance(value, list) and node.items is not None and node.items.has_rules:
        known: dict[Any, Any] = {}
        if node.keys and isinstance(old, list):
            known = {node.key_of(entry): entry for entry in old if isinstance(entry, dict)}
        for index, entry in enumerate(value):
            # Items of other lists have no identity, so that they are always new.
            before = known.get(node.key_of(entry), MISSING) if known else MISSING
            _walk(entry, before, node.items, f"{path}[{index}]", causes)


def _evaluate(
    rule: Rule,
    value: Any,
    old: Any,
    path: str,
    causes: list[Cause],
    *,
    unchanged: bool,
    node: Node,
) -> None:
    try:
        program = compiled(rule.rule)
    except RuleError as error:
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {error}", path))
        return
    if program.transition:
        if old is MISSING and not rule.optional_old_self:
            return
    elif unchanged:
        return
    _variables["self"] = _escaped(value, node)
    if program.transition:
        before = None if old is MISSING else _escaped(old, node)
        _variables["oldSelf"] = before if not rule.optional_old_self else _optional(before)
    try:
        if program.program.execute(_CONTEXT) is True:
            return
        message = _message(rule)
        if rule.reason == "FieldValueInvalid" and not isinstance(value, dict | list):
            # Of objects and lists Kubernetes shows nothing here.
            message = f"{show(value)}: {message}"
    except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
        why = f"no such key: {error.args[0]}" if isinstance(error, KeyError) else str(error)
        message = f"{show(value)}: {why} evaluating rule: {rule.message or rule.rule}"
    finally:
        _variables.clear()
    field = path + _field_suffix(rule.field_path)
    if not path:
        field = field.lstrip(".") or "<nil>"
    template = _MESSAGES.get(rule.reason, _MESSAGES["FieldValueInvalid"])
    causes.append(Cause(rule.reason, template.format(message=message), field))


def _optional(value: Any) -> Any:
    return cel.OptionalValue.none() if value is None else cel.OptionalValue.of(value)


def _message(rule: Rule) -> str:
    if rule.message_expression:
        try:
            text = compiled(rule.message_expression).program.execute(_CONTEXT)
        except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError):
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text
    return rule.message or f"failed rule: {rule.rule}"


def _field_suffix(field_path: str) -> str:
    """``.a.b`` or ``['x']`` as it is appended to a path."""
    return re.sub(r"\['([^']*)'\]", r".\1", field_path)


def _escaped(value: Any, node: Node) -> Any:
    if not isinstance(value, (dict, list)) or not node.has_rules or not _escapes_below(node):
        return value
    if isinstance(value, list):
        inner = node.items
        return [_escaped_item(entry, inner) for entry in value]
    return _escaped_item(value, node)


def _escaped_item(value: Any, node: Node | None) -> Any:
    if node is None:
        return value
    if isinstance(value, dict):
        return {
            (escape(name) if name in node.properties else name): _escaped_item(
                entry, node.child(name)
            )
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_escaped_item(entry, node.items) for entry in value]
    return value


@functools.lru_cache(maxsize=8192)
def _escapes_below(node: Node) -> bool:
    """Whether a declared name at or below needs escaping; ``metadata`` never does here."""
    names = [n for n in node.properties if n != "metadata"]
    if any(escape(name) != name for name in names):
        return True
    below = [node.properties[n] for n in names]
    below += [n for n in (node.items, node.extra) if n is not None]
    return any(_escapes_below(child) for child in below)


def evaluate_condition(program: Program, variables: Json) -> bool:
    """Whether an admission ``matchCondition`` holds for these variables."""
    return evaluate(program, variables) is True


def evaluate(program: Program, variables: Json) -> Any:
    """The value of an expression for these variables."""
    _variables.update(variables)
    try:
        return program.program.execute(_CONTEXT)
    finally:
        _variables.clear()
