"""The ValidatingWebhookConfiguration: when the API server asks the webhook, and how to reach it.

`failurePolicy` is Ignore unless told otherwise: while no operator answers, people can work on, and
nothing unsafe is placed because the controller checks again. So an operator that is gone, or was
uninstalled in the wrong order, leaves nothing stuck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from beamlit_operator.api import labels
from beamlit_operator.kube import Json, Resource
from beamlit_operator.rollout.orders import ANNOTATIONS

CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

NAME = "beamlit-admission"
WEBHOOK = "policy.beamlit.com"
"""Stands in front of every refusal that a person reads."""
SERVICE = "beamlit-webhook"
PATH = "/validate"

TIMEOUT = 5
"""Seconds the API server waits; an answer takes milliseconds, and a person waits for it."""

CLUSTERS_OWN = (
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
)
"""Users who delete what others have decided to delete; without own accounts they are the first."""

ORDER_CHANGES = (
    "(has(object.metadata.annotations) && "
    f"[{', '.join(repr(each) for each in ANNOTATIONS.values())}].exists(a, "
    "a in object.metadata.annotations && (!has(oldObject.metadata.annotations) || "
    "!(a in oldObject.metadata.annotations) || "
    "object.metadata.annotations[a] != oldObject.metadata.annotations[a])))"
)
"""Whether an order about a rollout is given."""

FailurePolicy = Literal["Ignore", "Fail"]


def configuration(
    client_config: Json,
    *,
    failure_policy: FailurePolicy = "Ignore",
    namespaces: Sequence[str] = (),
) -> Json:
    """The configuration.

    Args:
        client_config: `by_service` or `by_url`.
        failure_policy: what counts when nobody answers.
        namespaces: the workspaces that the operator serves; empty is all.
    """
    webhook: Json = {
        "name": WEBHOOK,
        "clientConfig": client_config,
        "rules": [
            _rule(["modeldeployments"], ["CREATE", "UPDATE"]),
            _rule(["environments", "policies"], ["CREATE", "UPDATE", "DELETE"]),
            _rule(["models"], ["DELETE"]),
        ],
        # What would only be allowed is not asked about at all.
        "matchConditions": [
            {
                "name": "spec-changes",
                "expression": "request.operation != 'UPDATE' || !has(object.spec) || "
                f"!has(oldObject.spec) || object.spec != oldObject.spec || {ORDER_CHANGES}",
            },
            {
                "name": "stays",
                "expression": "request.operation == 'DELETE' || "
                "!has(object.metadata.deletionTimestamp)",
            },
            {
                "name": "not-the-cluster-itself",
                "expression": "!(request.userInfo.username in "
                f"[{', '.join(repr(each) for each in CLUSTERS_OWN)}])",
            },
        ],
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT,
        "admissionReviewVersions": ["v1"],
    }
    if namespaces:
        chosen = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [*namespaces]}
        webhook["namespaceSelector"] = {"matchExpressions": [chosen]}
    return {
        "apiVersion": CONFIGURATIONS.api_version,
        "kind": CONFIGURATIONS.kind,
        "metadata": {
            "name": NAME,
            "labels": {labels.NAME: labels.OPERATOR_NAME, labels.PART_OF: "beamlit"},
        },
        "webhooks": [webhook],
    }


def by_service(namespace: str, *, name: str = SERVICE) -> Json:
    """Reached through the operator's Service."""
    return {"service": {"namespace": namespace, "name": name, "path": PATH, "port": 443}}


def by_url(listen: str) -> Json:
    """Reached at an address, where there is no Service: on a laptop."""
    return {"url": f"https://{listen}{PATH}"}


def _rule(plurals: list[str], operations: list[str]) -> Json:
    return {
        "apiGroups": [labels.GROUP],
        "apiVersions": [labels.VERSION],
        "resources": plurals,
        "operations": operations,
        "scope": "Namespaced",
    }
