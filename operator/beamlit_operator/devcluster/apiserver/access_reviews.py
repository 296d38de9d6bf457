"""Reviews: who am I, whose token is this, and who may do what."""

from __future__ import annotations

from typing import Any, Final

from beamlit_operator.devcluster.apiserver.authentication import Authenticator
from beamlit_operator.devcluster.apiserver.authorization import Attributes, Authorizer
from beamlit_operator.devcluster.apiserver.discovery import REVIEWS
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_request,
    bad_value,
    invalid,
    no_such_path,
)
from beamlit_operator.devcluster.apiserver.metadata import now_text
from beamlit_operator.devcluster.apiserver.paths import Target
from beamlit_operator.devcluster.apiserver.users import User
from beamlit_operator.kube import Json

_GROUP: Final = "authorization.k8s.io"


class Reviews:
    """Answers the kinds that are asked, never stored."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    def answer(self, target: Target, body: Any, user: User) -> Json:
        """The review with its status.

        Raises:
            ApiError: 400, 404 or 422.
        """
        known = REVIEWS[(target.group, target.version)].get(target.plural)
        if known is None or target.name or known[1] is not bool(target.namespace):
            raise no_such_path()
        kind = known[0]
        spec = body.get("spec") or {} if isinstance(body, dict) else None
        if not isinstance(spec, dict) or not isinstance(body.get("metadata") or {}, dict):
            raise bad_request(f"the body must be a {kind} object")
        if body.get("kind") not in (None, "", kind):
            raise bad_request(
                f"the kind in the data ({body['kind']}) does not match the expected kind ({kind})"
            )
        metadata = dict(body.get("metadata") or {})
        if target.namespace:
            metadata["namespace"] = target.namespace
        answer: Json = {
            "kind": kind,
            "apiVersion": f"{target.group}/{target.version}",
            "metadata": metadata,
        }
        if kind == "SelfSubjectReview":
            metadata["creationTimestamp"] = now_text()
            return {**answer, "status": {"userInfo": user.info()}}
        status = self._status(kind, spec, user, target)
        # Kubernetes gives the question back, except for this one.
        return {
            **answer,
            "spec": {} if kind == "SelfSubjectRulesReview" else spec,
            "status": status,
        }

    def _status(self, kind: str, spec: Json, user: User, target: Target) -> Json:
        if kind == "TokenReview":
            return self._authenticator.review(spec)
        if kind == "SelfSubjectRulesReview":
            return self._rules(spec, user)
        if kind != "SelfSubjectAccessReview":
            user = _subject(spec, user)
        attributes = _attributes(kind, spec, target.namespace)
        decision = self._authorizer.decide(user, attributes)
        status: Json = {"allowed": decision.allowed}
        if decision.reason:
            status["reason"] = decision.reason
        return status

    def _rules(self, spec: Json, user: User) -> Json:
        namespace = spec.get("namespace")
        if not namespace or not isinstance(namespace, str):
            raise bad_request("no namespace on request")
        resources: list[Json] = []
        paths: list[Json] = []
        for rule in self._authorizer.rules(user, namespace):
            found = paths if "nonResourceURLs" in rule else resources
            if rule not in found:
                found.append(rule)
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}


def _subject(spec: Json, asker: User) -> User:
    groups, extra = spec.get("groups") or (), spec.get("extra") or {}
    if not isinstance(groups, list | tuple) or not isinstance(extra, dict):
        raise bad_request("spec.groups must be a list and spec.extra an object")
    if not all(values is None or isinstance(values, list) for values in extra.values()):
        raise bad_request("the values of spec.extra must be lists")
    return User(
        str(spec.get("user") or ""),
        tuple(map(str, groups)),
        str(spec.get("uid") or ""),
        {name: tuple(map(str, values or ())) for name, values in extra.items()},
    )


def _attributes(kind: str, spec: Json, namespace: str) -> Attributes:
    """What is asked about.

    Raises:
        ApiError: 422; like Kubernetes' the refusal names no kind.
    """
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if not all(part is None or isinstance(part, dict) for part in (resource, path)):
        raise bad_request("spec.resourceAttributes and spec.nonResourceAttributes must be objects")
    causes: list[Cause] = []
    if resource is not None and path is not None:
        shown = "{" + f'"Path":"{path.get("path", "")}","Verb":"{path.get("verb", "")}"' + "}"
        causes.append(
            Cause(
                "FieldValueInvalid",
                f"Invalid value: {shown}: cannot be specified in combination with "
                "resourceAttributes",
                "spec.nonResourceAttributes",
            )
        )
    elif resource is None and path is None:
        causes.append(
            bad_value(
                "spec.resourceAttributes",
                None,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
        )
    if kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        causes.append(bad_value("spec.user", "", "at least one of user or group must be specified"))
    given = resource if isinstance(resource, dict) else {}
    if kind == "LocalSubjectAccessReview" and not causes and given.get("namespace") != namespace:
        causes.append(
            bad_value(
                "spec.resourceAttributes.namespace",
                given.get("namespace") or "",
                "must match metadata.namespace",
            )
        )
    if causes:
        raise invalid(_GROUP, "", "", causes)
    if isinstance(path, dict):
        return Attributes(str(path.get("verb") or ""), path=str(path.get("path") or ""))
    fields = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(
        str(given.get("verb") or ""), **{name: str(given.get(name) or "") for name in fields}
    )
