"""What Kubernetes checks about ValidatingAdmissionPolicies and their bindings when they are stored.

Source: k8s.io/kubernetes/pkg/apis/admissionregistration/validation. What
objects look like is not known to expressions here, so that a wrong field is an error at use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from beamlit_operator.devcluster.apiserver.cel import RuleError, compiled
from beamlit_operator.devcluster.apiserver.cel_syntax import parse
from beamlit_operator.devcluster.apiserver.cel_types import DYN, TypeProblemError, result_of
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    not_supported,
    required,
)
from beamlit_operator.kube import Json

_ACTIONS: Final = ("Audit", "Deny", "Warn")
_KNOWN: Final = frozenset(
    ("object", "oldObject", "request", "params", "namespaceObject", "variables")
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*")


def policy_causes(item: Json) -> Iterator[Cause]:
    """What is wrong with a ValidatingAdmissionPolicy."""
    spec = item.get("spec") or {}
    known = _KNOWN if spec.get("paramKind") else _KNOWN - {"params"}
    if not (spec.get("matchConstraints") or {}).get("resourceRules"):
        where = "spec.matchConstraints"
        yield required(f"{where}.resourceRules" if spec.get("matchConstraints") else where)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        why = "validations or auditAnnotations must contain at least one item"
        yield required("spec.validations", why)
    for index, each in enumerate(spec.get("matchConditions") or ()):
        where = f"spec.matchConditions[{index}].expression"
        yield from _expression(each.get("expression", ""), where, known - {"variables"})
    for index, each in enumerate(spec.get("variables") or ()):
        where = f"spec.variables[{index}]"
        if not _IDENTIFIER.fullmatch(each.get("name", "")):
            yield bad_value(f"{where}.name", each.get("name"), "name is not a valid CEL identifier")
        yield from _expression(each.get("expression", ""), f"{where}.expression", known, result="")
    for index, each in enumerate(spec.get("validations") or ()):
        where = f"spec.validations[{index}]"
        yield from _expression(each.get("expression", ""), f"{where}.expression", known)
        if each.get("messageExpression"):
            text = each["messageExpression"]
            yield from _expression(text, f"{where}.messageExpression", known, result="string")
        if "\n" in each.get("expression", "").strip() and not each.get("message"):
            why = "message must be specified if expression contains line breaks"
            yield required(f"{where}.message", why)


def binding_causes(item: Json) -> Iterator[Cause]:
    """What is wrong with a ValidatingAdmissionPolicyBinding."""
    spec = item.get("spec") or {}
    if not spec.get("policyName"):
        yield required("spec.policyName")
    actions = spec.get("validationActions") or []
    if not actions:
        yield required("spec.validationActions", "at least one validation action is required")
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            yield not_supported(f"spec.validationActions[{index}]", action, _ACTIONS)
    if "Deny" in actions and "Warn" in actions:
        why = "must not contain both Deny and Warn (repeating the same validation failure "
        why += "information in the API response and headers serves no purpose)"
        yield bad_value("spec.validationActions", actions, why)
    ref = spec.get("paramRef")
    if ref is not None:
        if bool(ref.get("name")) == (ref.get("selector") is not None):
            yield bad_value("spec.paramRef.name", ref.get("name"), "one of name or selector")
        if not ref.get("parameterNotFoundAction"):
            yield required("spec.paramRef.parameterNotFoundAction")


def _expression(
    text: str, where: str, known: frozenset[str], *, result: str = "bool"
) -> Iterator[Cause]:
    if not text.strip():
        yield required(where, "expression is not specified")
        return
    try:
        compiled(text)
        kind = result_of(text, dict.fromkeys(known, DYN))
    except RuleError as error:
        yield bad_value(where, text, str(error))
        return
    except TypeProblemError as error:
        why = f"compilation failed: {error}"
        if "'authorizer'" in why:
            why += "; the embedded cluster does not have it"
        yield bad_value(where, text, why)
        return
    # A field is dyn in Kubernetes too; of anything else it may be that only we do not know.
    unsure = kind.name == "dyn" and parse(text).kind not in ("select", "index", "ident")
    if result and kind.name != result and not unsure:
        yield bad_value(where, text, f"must evaluate to {result} but got {kind}")
