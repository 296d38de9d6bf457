"""ValidatingAdmissionPolicies: CEL that refuses writes, in the API server itself.

| match constraints and conditions | params                        | validation | then            |
|----------------------------------|-------------------------------|------------|-----------------|
| do not match                     |                               |            | admitted        |
| match                            | none, parameterNotFoundAction |            | Allow: admitted |
| match                            | none, parameterNotFoundAction |            | Deny: an error  |
| match                            | not asked for, or found       | true       | admitted        |
| match                            | not asked for, or found       | false      | Deny or Warn    |
| an error                         |                               | an error   | failurePolicy   |

Semantics and wording of k8s.io/apiserver/pkg/admission/plugin/policy/validating. There is no audit
log, so that the action Audit and audit annotations leave nothing behind; `authorizer` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.admission_matching import (
    admission_request,
    matches_constraints,
)
from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.cel import RuleError, compiled, evaluate
from beamlit_operator.devcluster.apiserver.errors import forbidden
from beamlit_operator.devcluster.apiserver.selectors import matches_selector
from beamlit_operator.devcluster.apiserver.served import Registry
from beamlit_operator.devcluster.apiserver.store import Event, Key, Store
from beamlit_operator.kube import ApiError, Json

_GROUP: Final = "admissionregistration.k8s.io"
POLICIES: Final = f"validatingadmissionpolicies.{_GROUP}"
BINDINGS: Final = f"validatingadmissionpolicybindings.{_GROUP}"

_CODES: Final = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413}
_ERRORS: Final = (
    RuleError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    ArithmeticError,
)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A policy and one of its bindings."""

    policy: str
    spec: Json
    binding: str
    use: Json

    @property
    def ignores_errors(self) -> bool:
        return bool(self.spec.get("failurePolicy") == "Ignore")


@dataclass(frozen=True, slots=True)
class _Failed:
    """A validation that did not hold."""

    message: str
    reason: str = "Invalid"


class _BrokenError(Exception):
    """Something could not be evaluated: the failure policy decides."""


class AdmissionPolicies:
    """The step of :class:`~beamlit_operator.devcluster.apiserver.admission.Steps` for policies."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._bound: list[_Bound] = []

    def load(self) -> None:
        """Reads policies and bindings in the store."""
        policies = self._store.collection(POLICIES).objects
        self._bound = []
        for entry in sorted(self._store.collection(BINDINGS).objects.values(), key=lambda e: e.key):
            use = entry.obj["spec"]
            policy = policies.get(Key("", use.get("policyName", "")))
            if policy is not None:
                name = policy.key.name
                self._bound.append(_Bound(name, policy.obj["spec"], entry.key.name, use))
        self._bound.sort(key=lambda each: (each.policy, each.binding))

    def observe(self, resource: str, _: Event) -> None:
        """Called after every commit."""
        if resource in (POLICIES, BINDINGS):
            self.load()

    def concerns(self, review: Review) -> bool:
        """Whether any policy may have something to say; none says anything about policies."""
        return bool(self._bound) and review.served.resource not in (POLICIES, BINDINGS)

    async def mutate(self, review: Review) -> Json:
        """Policies only validate."""
        assert review.new is not None
        return review.new

    async def validate(self, review: Review) -> None:
        """Refuses with the first policy that denies, and adds the warnings of all."""
        denied: ApiError | None = None
        for bound in self._bound:
            if not self._matches(bound, review):
                continue
            try:
                failures = [*self._failures(bound, review)]
            except _BrokenError as error:
                failures = [] if bound.ignores_errors else [_Failed(str(error))]
                actions = ["Deny"]
            else:
                actions = bound.use.get("validationActions") or []
            for failed in failures:
                if "Deny" in actions and denied is None:
                    denied = _denial(bound, failed, review)
                if "Warn" in actions:
                    review.options.warnings.append(
                        f"Validation failed for ValidatingAdmissionPolicy '{bound.policy}' with "
                        f"binding '{bound.binding}': {failed.message}"
                    )
        if denied is not None:
            raise denied

    def _matches(self, bound: _Bound, review: Review) -> bool:
        return matches_constraints(
            bound.spec.get("matchConstraints") or {}, review, self._store
        ) and (
            not bound.use.get("matchResources")
            or matches_constraints(bound.use["matchResources"], review, self._store)
        )

    def _failures(self, bound: _Bound, review: Review) -> Iterator[_Failed]:
        for params in self._params(bound, review):
            yield from self._judged(bound, review, params)

    def _params(self, bound: _Bound, review: Review) -> list[Json | None]:
        kind, ref = bound.spec.get("paramKind"), bound.use.get("paramRef")
        if not kind or not ref:
            return [None]
        served = self._registry.of_kind(kind.get("apiVersion", ""), kind.get("kind", ""))
        if served is None:
            raise _BrokenError(
                "failed to configure policy: failed to find resource referenced by paramKind: "
                f"'{kind.get('apiVersion')}, Kind={kind.get('kind')}'"
            )
        namespace = ""
        if served.namespaced:
            namespace = ref.get("namespace") or review.key.namespace
            if not namespace:
                raise _BrokenError(
                    "failed to configure binding: cannot use namespaced paramRef in policy "
                    "binding that matches cluster-scoped resources"
                )
        collection = self._store.collection(served.resource)
        if ref.get("name"):
            entry = collection.objects.get(Key(namespace, ref["name"]))
            found = [entry] if entry is not None else []
        else:
            chosen = ref.get("selector") or {}
            found = [
                entry
                for entry in collection.select(namespace or None)
                if matches_selector(chosen, entry.obj["metadata"].get("labels") or {})
            ]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise _BrokenError(
                "failed to configure binding: no params found for policy binding with `Deny` "
                "parameterNotFoundAction"
            )
        return [entry.view(served.api_version) for entry in found]

    def _judged(self, bound: _Bound, review: Review, params: Json | None) -> Iterator[_Failed]:
        home = self._store.collection("namespaces").objects.get(Key("", review.key.namespace))
        known: dict[str, Any] = {
            "object": review.new,
            "oldObject": review.old,
            "request": admission_request(review, "")["request"],
            "params": params,
            "namespaceObject": home.obj if home is not None else None,
            "variables": {},
        }
        for condition in bound.spec.get("matchConditions") or ():
            try:
                holds = evaluate(compiled(condition["expression"]), known)
            except _ERRORS as error:
                raise _BrokenError(
                    f"matchCondition {condition.get('name')!r} resulted in error: {_why(error)}"
                ) from error
            if holds is not True:
                return
        broken: dict[str, str] = {}
        for variable in bound.spec.get("variables") or ():
            try:
                value = evaluate(compiled(variable["expression"]), known)
            except _ERRORS as error:
                # As in Kubernetes, it matters only to what uses it.
                broken[variable["name"]] = _why(error)
            else:
                known["variables"] = {**known["variables"], variable["name"]: value}
        for validation in bound.spec.get("validations") or ():
            expression = validation["expression"].strip()
            try:
                holds = evaluate(compiled(validation["expression"]), known)
            except _ERRORS as error:
                why = broken.get(str(error.args[0])) if isinstance(error, KeyError) else None
                if not bound.ignores_errors:
                    text = f"expression '{expression}' resulted in error: {why or _why(error)}"
                    yield _Failed(text)
                continue
            if holds is not True:
                message = _message(validation, known) or f"failed expression: {expression}"
                yield _Failed(message, validation.get("reason") or "Invalid")


def _message(validation: Json, known: dict[str, Any]) -> str:
    expression = validation.get("messageExpression")
    if expression:
        try:
            text = evaluate(compiled(expression), known)
        except _ERRORS:
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text.strip()
    return str(validation.get("message") or "").strip()


def _denial(bound: _Bound, failed: _Failed, review: Review) -> ApiError:
    text = (
        f"ValidatingAdmissionPolicy '{bound.policy}' with binding '{bound.binding}' denied "
        f"request: {failed.message}"
    )
    served = review.served
    usual = forbidden(served.group, served.plural, review.key.name, text)
    details = {**usual.details, "causes": [{"message": text}]}
    code = _CODES.get(failed.reason, 422)
    return ApiError(code, failed.reason, usual.message, details=details)


def _why(error: BaseException) -> str:
    return f"no such key: {error.args[0]}" if isinstance(error, KeyError) else str(error)
