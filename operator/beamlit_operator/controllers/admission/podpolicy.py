"""A belt beside the braces: pods that do not carry their policy are refused by the API server.

The ValidatingAdmissionPolicy `beamlit-placement` looks at pods (and Deployments) with the label
`beamlit.com/model-deployment`, when they are made or get the label:

| its deployment has an entry | the pod                                            | then    |
|-----------------------------|----------------------------------------------------|---------|
| no: anything is allowed     |                                                    | allowed |
| yes                         | names a node itself                                | refused |
| yes                         | every required node selector term begins with a    | allowed |
|                             | location term and a hardware term of one placement |         |
| yes                         | else, such as no required node affinity            | refused |

More requirements after those only narrow, and terms are alternatives, so each of them must begin
so. What costs: one comparison of a few kilobytes of text per pod of ours, nothing for other pods.
"""

from __future__ import annotations

from beamlit_operator.api import labels
from beamlit_operator.controllers.admission.guard import NAME as PLACEMENTS
from beamlit_operator.kube import Json

NAME = "beamlit-placement"
API_VERSION = "admissionregistration.k8s.io/v1"
SERVICE_ACCOUNT = "beamlit-operator"

_LABEL = f"'{labels.MODEL_DEPLOYMENT}'"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

_NEW = (
    "request.operation == 'CREATE' || "
    f"!has(oldObject.metadata.labels) || !({_LABEL} in oldObject.metadata.labels) || "
    f"!has(object.metadata.labels) || !({_LABEL} in object.metadata.labels) || "
    f"object.metadata.labels[{_LABEL}] != oldObject.metadata.labels[{_LABEL}] || "
    "(has(dyn(object).spec.template) && dyn(object).spec.template != dyn(oldObject).spec.template)"
)

_VARIABLES = {
    "owner": f"has(object.metadata.labels) && {_LABEL} in object.metadata.labels "
    f"? object.metadata.labels[{_LABEL}] : ''",
    "entry": "request.namespace + '.' + variables.owner",
    "known": "has(params.data) ? params.data : {}",
    "placements": "variables.entry in variables.known "
    "? variables.known[variables.entry].split(' ').filter(p, p in variables.known) : []",
    "pod": "has(dyn(object).spec.template) ? dyn(object).spec.template.spec : dyn(object).spec",
    "terms": "has(variables.pod.affinity) && has(variables.pod.affinity.nodeAffinity) && "
    f"has(variables.pod.affinity.nodeAffinity.{_REQUIRED}) "
    f"? variables.pod.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms : []",
    # As `placements.line` writes them.
    "texts": "variables.terms.map(t, has(t.matchExpressions) ? t.matchExpressions.map(e, "
    "e.key + ' ' + e.operator + (has(e.values) && size(e.values) > 0 "
    "? ' ' + e.values.join(' ') : '') + '\\n').join('') : '')",
}

_FREE = "!(variables.entry in variables.known)"

_CARRIED = (
    f"{_FREE} || (size(variables.texts) > 0 && variables.placements.exists(p, "
    "variables.texts.all(x, "
    "variables.known[variables.known[p].split('\\n')[0]].split(';').exists(l, x.startsWith(l) && "
    "variables.known[variables.known[p].split('\\n')[1]].split(';').exists(h, "
    "x.startsWith(l + h))))))"
)

_NO_NODE = f"{_FREE} || !has(variables.pod.nodeName) || variables.pod.nodeName == ''"


def policy(operator: str) -> Json:
    """The ValidatingAdmissionPolicy; ``operator`` is the user that makes the Deployments.

    It is left out because what it writes comes a moment before the entry that is compared with.
    """
    chosen = {"key": labels.MODEL_DEPLOYMENT, "operator": "Exists"}
    return {
        "apiVersion": API_VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _metadata(),
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {
                "resourceRules": [
                    _rule("", "pods"),
                    _rule("apps", "deployments"),
                ],
                # Whatever is wrong here, no pod but ours can suffer from it.
                "objectSelector": {"matchExpressions": [chosen]},
            },
            "matchConditions": [
                {"name": "placed-anew", "expression": _NEW},
                {
                    "name": "not-the-operator",
                    "expression": f"request.userInfo.username != '{operator}'",
                },
            ],
            "variables": [{"name": name, "expression": text} for name, text in _VARIABLES.items()],
            "validations": [
                {
                    "expression": _CARRIED,
                    "message": "it does not carry its policies' required node affinity",
                    "messageExpression": "'it belongs to ModelDeployment ' + variables.owner + "
                    "', whose policies it does not carry: its required node affinity must be what "
                    "the operator writes (kubectl get modeldeployment ' + variables.owner + "
                    "' -o yaml shows status.effectivePolicy)'",
                    "reason": "Forbidden",
                },
                {
                    "expression": _NO_NODE,
                    "message": "spec.nodeName bypasses the scheduler and with it the policies of "
                    "its ModelDeployment: remove it",
                    "reason": "Forbidden",
                },
            ],
        },
    }


def user(namespace: str) -> str:
    """The operator's user, as it is installed in a namespace."""
    return f"system:serviceaccount:{namespace}:{SERVICE_ACCOUNT}"


def binding(namespace: str) -> Json:
    """Its binding. Without the placements nothing of ours is let in: fails closed."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _metadata(),
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "paramRef": {
                "name": PLACEMENTS,
                "namespace": namespace,
                "parameterNotFoundAction": "Deny",
            },
        },
    }


def _metadata() -> Json:
    marks = {labels.NAME: labels.OPERATOR_NAME, labels.PART_OF: "beamlit"}
    return {"name": NAME, "labels": marks}


def _rule(group: str, plural: str) -> Json:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [plural],
        "scope": "Namespaced",
    }
