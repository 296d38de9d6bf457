"""AdmissionReview, version v1: what the API server asks, and how it wants to be answered.

Source: k8s.io/api/admission/v1. The API server cuts warnings to 256 characters each once all of
them together exceed 4096 (k8s.io/apiserver/pkg/endpoints/filters/warning.go), so that fewer are
sent than there may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import labels
from beamlit_operator.controllers.admission.decision import Decision
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.kube import Json

API_VERSION = "admission.k8s.io/v1"
ALL_WARNINGS = 3800
"""Characters of all warnings together, so that none is cut."""


class MalformedError(ValueError):
    """What arrived is no AdmissionReview that can be answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. ``new`` is None for DELETE, ``old`` for CREATE."""

    uid: str
    kind: Kind | None
    """None: not one of ours."""
    operation: str
    namespace: str
    name: str
    subresource: str = ""
    new: Json | None = None
    old: Json | None = None
    dry_run: bool = False
    user: str = ""


def parse(body: object) -> Request:
    """The request in a decoded body.

    Raises:
        MalformedError: there is none, or none that could be answered.
    """
    if not isinstance(body, Mapping) or body.get("kind") != "AdmissionReview":
        raise MalformedError("the body is not an AdmissionReview")
    if body.get("apiVersion") != API_VERSION:
        raise MalformedError(f"the AdmissionReview is not of {API_VERSION}")
    request = body.get("request")
    if not isinstance(request, Mapping) or not _text(request.get("uid")):
        raise MalformedError("the AdmissionReview has no request with a uid")
    return Request(
        uid=_text(request.get("uid")),
        kind=_kind(request.get("kind")),
        operation=_text(request.get("operation")),
        namespace=_text(request.get("namespace")),
        name=_text(request.get("name")),
        subresource=_text(request.get("subResource")),
        new=_object(request.get("object")),
        old=_object(request.get("oldObject")),
        dry_run=request.get("dryRun") is True,
        user=_text(_map(request.get("userInfo")).get("username")),
    )


def answer(uid: str, decision: Decision) -> Json:
    """The AdmissionReview that answers."""
    response: Json = {"uid": uid, "allowed": decision.allowed}
    if not decision.allowed:
        response["status"] = {
            "status": "Failure",
            "message": decision.message,
            "reason": "Forbidden",
            "code": 403,
        }
    warnings = _that_fit(decision.warnings)
    if warnings:
        response["warnings"] = warnings
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def _that_fit(warnings: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    left = ALL_WARNINGS
    for number, each in enumerate(warnings):
        # A header's value is one line.
        line = " ".join(each.split())
        if len(line) > left:
            more = len(warnings) - number
            kept.append(f"and {more} more; see the status of the object")
            break
        left -= len(line)
        kept.append(line)
    return kept


def _kind(value: object) -> Kind | None:
    given = _map(value)
    if given.get("group") != labels.GROUP or given.get("version") != labels.VERSION:
        return None
    name = given.get("kind")
    return Kind(name) if name in list(Kind) else None


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _object(value: object) -> Json | None:
    return dict(value) if isinstance(value, Mapping) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
