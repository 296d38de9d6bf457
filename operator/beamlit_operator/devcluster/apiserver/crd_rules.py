"""Whether the CEL rules of a definition could ever be evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.cel import RuleError, compiled
from beamlit_operator.devcluster.apiserver.cel_types import (
    DYN,
    Type,
    TypeProblemError,
    declared,
    result_of,
)
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    not_supported,
    required,
)
from beamlit_operator.kube import Json

_REASONS: Final = (
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
)
_STEP: Final = re.compile(r"\.([A-Za-z_$][\w$-]*)|\['([^']+)'\]|\[\"([^\"]+)\"\]")


def rule_problems(
    schema: Json, path: str, *, uncorrelated: str = "", root: bool = True
) -> Iterator[Cause]:
    """What is wrong with the rules at and below ``schema``; ``uncorrelated`` is the path of the
    list around it whose items cannot be told apart, so that they have no old self."""
    rules = schema.get("x-kubernetes-validations") or ()
    if rules:
        own = declared(schema, root=root)
        for index, rule in enumerate(rules):
            where = f"{path}.x-kubernetes-validations[{index}]"
            yield from _text_causes(rule, where)
            yield from _expression_causes(rule, own, where, uncorrelated)
            field_path = rule.get("fieldPath")
            if field_path and not _leads_somewhere(schema, field_path):
                yield bad_value(f"{where}.fieldPath", field_path, "must be a valid path")
    for name, child in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            where = f"{path}.properties[{name}]"
            yield from rule_problems(child, where, uncorrelated=uncorrelated, root=False)
    extra, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(extra, dict):
        where = f"{path}.additionalProperties"
        yield from rule_problems(extra, where, uncorrelated=uncorrelated, root=False)
    if isinstance(items, dict):
        if schema.get("x-kubernetes-list-type") != "map":
            uncorrelated = uncorrelated or path
        yield from rule_problems(items, f"{path}.items", uncorrelated=uncorrelated, root=False)


def _text_causes(rule: Json, path: str) -> Iterator[Cause]:
    text, message = rule.get("rule", ""), rule.get("message", "")
    if message and not message.strip():
        yield bad_value(f"{path}.message", message, "must be non-empty if specified")
    elif "\n" in message:
        yield bad_value(f"{path}.message", message, "must not contain line breaks")
    elif "\n" in text.strip() and not message:
        why = "message must be specified if rule contains line breaks"
        yield required(f"{path}.message", why)
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        yield not_supported(f"{path}.reason", reason, _REASONS)


def _expression_causes(rule: Json, own: Type, path: str, uncorrelated: str) -> Iterator[Cause]:
    text, message = rule.get("rule", ""), rule.get("messageExpression", "")
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
        return
    variables = {"self": own, "oldSelf": DYN if rule.get("optionalOldSelf") else own}
    try:
        transition = compiled(text).transition
        kind = result_of(text, variables)
    except (RuleError, TypeProblemError) as error:
        yield _refused(rule, f"{path}.rule", _sentence(error, text))
        return
    if kind.name not in ("bool", "dyn"):
        yield _refused(rule, f"{path}.rule", "cel expression must evaluate to a bool")
    if uncorrelated and transition:
        why = "oldSelf cannot be used on the uncorrelatable portion of the schema within "
        yield bad_value(f"{path}.rule", text, why + uncorrelated)
    if not message:
        return
    try:
        compiled(message)
        kind = result_of(message, variables)
    except (RuleError, TypeProblemError) as error:
        where = f"{path}.messageExpression"
        yield _refused(rule, where, f"messageExpression {_sentence(error, message)}")
        return
    if kind.name not in ("string", "dyn"):
        why = "messageExpression must evaluate to a string"
        yield _refused(rule, f"{path}.messageExpression", why)


def _sentence(error: Exception, text: str) -> str:
    """As the compiler of Kubernetes puts it, with the line and a mark below the place."""
    if not isinstance(error, TypeProblemError):
        return str(error)
    lines = text[: error.place].split("\n")
    number, column = len(lines), len(lines[-1])
    line = text.split("\n")[number - 1]
    return (
        f"compilation failed: ERROR: <input>:{number}:{column + 1}: {error}\n"
        f" | {line}\n | {'.' * column}^"
    )


def _refused(rule: Json, path: str, why: str) -> Cause:
    shown = {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
    text = json.dumps(shown, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Cause("FieldValueInvalid", f"Invalid value: {text}: {why}", path)


def _leads_somewhere(schema: Any, path: str) -> bool:
    """Whether a ``fieldPath`` names a field that is declared; there is no way into lists."""
    place = 0
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None:
            return False
        name = found[1] or found[2] or found[3]
        extra = schema.get("additionalProperties")
        if name in (schema.get("properties") or {}):
            schema = schema["properties"][name]
        elif isinstance(extra, dict):
            schema = extra
        else:
            return False
        place = found.end()
    return bool(path)
