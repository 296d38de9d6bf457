"""May this write happen, and what should its author know? Pure and total: it never raises.

| request                                                        | then                          |
|----------------------------------------------------------------|-------------------------------|
| not one of our kinds, a subresource, another workspace         | allowed                       |
| an object that is being deleted (finalizers come off)          | allowed                       |
| UPDATE that leaves the spec as it is (labels, owners, ...)     | allowed                       |
| DELETE of a ModelDeployment                                    | allowed                       |
| an object that cannot be read at all                           | allowed: its schema refuses   |
| CREATE, UPDATE of ModelDeployments, Environments, Policies     | that kind's module decides    |
| DELETE of Models, Environments, Policies                       | that kind's module decides    |
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from beamlit_operator.api import Environment, Model, ModelDeployment, Policy
from beamlit_operator.api.meta import Part
from beamlit_operator.controllers.admission import deployments, environments, models, policies
from beamlit_operator.controllers.admission.decision import ALLOWED, Decision
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.admission.wire import Request
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.controllers.objects import Held, held
from beamlit_operator.kube import Json
from beamlit_operator.rollout.orders import ANNOTATIONS

T = TypeVar("T", bound=Part)


def review(request: Request, picture: Picture) -> Decision:
    """The decision about one write."""
    if request.kind is None or request.subresource or not picture.holds(request.namespace):
        return ALLOWED
    if request.operation == "DELETE":
        return _deletion(request, picture)
    if request.operation not in ("CREATE", "UPDATE") or request.new is None:
        return ALLOWED
    if request.operation == "UPDATE" and _nothing_to_judge(request):
        return ALLOWED
    return _write(request, picture)


def _write(request: Request, picture: Picture) -> Decision:
    if request.kind is Kind.MODEL_DEPLOYMENT:
        deployment = _read(ModelDeployment, request.new, request)
        if deployment is not None and not deployment.deleting:
            before = _read(ModelDeployment, request.old, request)
            return deployments.review(deployment, before, picture)
    elif request.kind is Kind.ENVIRONMENT:
        environment = _read(Environment, request.new, request)
        if environment is not None and not environment.deleting:
            return environments.review(
                environment, _read(Environment, request.old, request), picture
            )
    elif request.kind is Kind.POLICY:
        policy = _read(Policy, request.new, request)
        if policy is not None and not policy.deleting:
            return policies.review(policy, _read(Policy, request.old, request), picture)
    return ALLOWED


def _deletion(request: Request, picture: Picture) -> Decision:
    if request.kind is Kind.MODEL:
        model = _read(Model, request.old, request)
        if model is not None and not model.deleting:
            return models.deletion(model, picture)
    elif request.kind is Kind.ENVIRONMENT:
        environment = _read(Environment, request.old, request)
        if environment is not None and not environment.deleting:
            return environments.deletion(environment, picture)
    elif request.kind is Kind.POLICY:
        policy = _read(Policy, request.old, request)
        if policy is not None and not policy.deleting:
            return policies.deletion(policy, picture)
    return ALLOWED


def _nothing_to_judge(request: Request) -> bool:
    old, new = request.old or {}, request.new or {}
    return bool(old.get("spec") == new.get("spec") and _orders(old) == _orders(new))


def _orders(raw: Json) -> list[object]:
    """The annotations that give orders about a rollout."""
    metadata = raw.get("metadata")
    given = metadata.get("annotations") if isinstance(metadata, dict) else None
    return [given.get(name) if isinstance(given, dict) else None for name in ANNOTATIONS.values()]


def _read(model: type[T], raw: Json | None, request: Request) -> Held[T] | None:
    """The object, in the workspace that the request names; None if it cannot be one."""
    metadata = (raw or {}).get("metadata")
    if raw is None or not isinstance(metadata, dict):
        return None
    name = metadata.get("name") or request.name
    whole = {**metadata, "name": name, "namespace": request.namespace}
    try:
        return held(model, {**raw, "metadata": whole})
    except (ValidationError, TypeError, ValueError):
        return None
