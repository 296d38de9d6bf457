"""What is asked rather than stored: reviews, binding and eviction of pods, log targets."""

from __future__ import annotations

import hmac
from typing import Any

from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.discovery import REVIEWS
from beamlit_operator.devcluster.apiserver.errors import bad_request, conflict, no_such_path
from beamlit_operator.devcluster.apiserver.paths import Target
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.removing import Deletion
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Key
from beamlit_operator.kube import Json

_USER: Json = {
    "username": "devcluster:admin",
    "groups": ["system:masters", "system:authenticated"],
}

_SUCCESS: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def answer(target: Target, body: Any, token: str) -> Json:
    """The review with its status. There is one user, who may do everything.

    Raises:
        ApiError: 400 or 404.
    """
    known = REVIEWS[(target.group, target.version)].get(target.plural)
    if known is None or target.name or known[1] is not bool(target.namespace):
        raise no_such_path()
    if not isinstance(body, dict) or not isinstance(body.get("spec", {}), dict):
        raise bad_request(f"the body must be a {known[0]} object")
    status: Json
    match known[0]:
        case "TokenReview":
            given = str((body.get("spec") or {}).get("token", "")).encode()
            good = hmac.compare_digest(given, token.encode())
            status = {"authenticated": True, "user": _USER} if good else {"authenticated": False}
        case "SelfSubjectReview":
            status = {"userInfo": _USER}
        case "SelfSubjectRulesReview":
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            status = {
                "resourceRules": [everything],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
        case _:
            status = {"allowed": True, "reason": "the embedded cluster allows everything"}
    return {
        **body,
        "apiVersion": f"{target.group}/{target.version}",
        "kind": known[0],
        "metadata": body.get("metadata") or {},
        "status": status,
    }


async def bind(api: Api, served: Served, key: Key, body: Any) -> Json:
    """Places a pod on a node.

    Raises:
        ApiError: 400, 404, or 409 when it is placed already.
    """
    node = ((body or {}).get("target") or {}).get("name") if isinstance(body, dict) else None
    if not node:
        raise bad_request("target.name: Required value: the node to bind the pod to")
    entry = api.get(served, key)
    if entry.obj["spec"].get("nodeName"):
        raise conflict(
            "", "pods/binding", key.name, f"pod {key.name} is already assigned to a node"
        )
    body = {**entry.copy(served.api_version)}
    body["spec"]["nodeName"] = node
    await api.update(served, key, body, Options(manager="kube-scheduler"))
    return _SUCCESS


async def evict(api: Api, served: Served, key: Key, body: Any) -> Json:
    """Deletes a pod; disruption budgets are stored, not enforced."""
    options = body.get("deleteOptions") if isinstance(body, dict) else None
    await api.delete(served, key, Deletion.parse(options or {}, {}), Options(manager="eviction"))
    return _SUCCESS


def log_container(pod: Json, asked: str) -> str:
    """The container whose log is meant.

    Raises:
        ApiError: 400, it does not exist, or there are several and none was named.
    """
    spec = pod["spec"]
    names = [c["name"] for kind in ("containers", "initContainers") for c in spec.get(kind) or ()]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in names:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    main = [c["name"] for c in spec.get("containers") or ()]
    if len(main) == 1:
        return str(main[0])
    raise bad_request(
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
    )
