"""Routes by path and by host: which request goes to which revision. Pure.

================================================  ==================================================
request                                           where it goes
================================================  ==================================================
``/{ws}/models/{model}[/rest][?environment=e]``   the deployment of (ws, model, e), as ``/rest``;
                                                  without ``environment``, or with an empty one:
                                                  ``production``
host ``{model}-{e}.{ws}.{domain}``                the same deployment, target as sent
host ``{md}.{ns}[.svc[.{cluster domain}]]``       the ModelDeployment ``md`` of workspace ``ns``
...of a deactivated deployment                    404 ``Deactivated``
...of one that has no revision yet                503 with the reason of its ``Ready`` condition
``/{ws}/models/...``, ws known                    404 ``UnknownModel`` or ``UnknownEnvironment``
``/{ws}/openai/v1/...``                           see :mod:`.openai`
``/{ws}/models/...``, ws not known                404 ``UnknownWorkspace``
anything else                                     404 ``NotFound``
================================================  ==================================================

The longest prefix of a path wins, and the short list of routes under it checks that the prefix ends
at a path segment, and which environment is asked for. :mod:`.routetable` puts them in trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamlit_operator.gateway import gate, names
from beamlit_operator.gateway.balancing import prefix_route
from beamlit_operator.gateway.catalog import DEFAULT_ENVIRONMENT, Deployment
from beamlit_operator.gateway.protos import (
    Message,
    PreviousHosts,
    Route,
    VirtualHost,
    packed,
)
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.splitting import Share, branches

ENVIRONMENT_PARAMETER = "environment"

NOT_READY_RETRY = 2.0
"""Seconds after which a caller may ask again for a deployment that is being prepared."""

# Sent again only while no model server can have seen the request: connections that failed, streams
# that were refused, resets before the request's headers went out, and answers of the cold listener
# that say so. The attempts span about two seconds: longer than an EndpointSlice lags behind a pod
# that went away. The first comes at once: until it does, Envoy reads on, and gives up on a body
# that is larger than it keeps. An agent that restarts is waited for otherwise (`agentpipe`).
RETRY_POLICY: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers",
    "retriable_headers": [{"name": names.RETRY_HEADER, "present_match": True}],
    "num_retries": {"value": 12},
    "retry_back_off": {"base_interval": {"nanos": 1_000_000}, "max_interval": {"seconds": 1}},
    "retry_host_predicate": [
        {"name": "another_pod", "typed_config": packed(PreviousHosts())},
    ],
    "host_selection_retry_max_attempts": 3,
}


KEPT_BODY = {"value": 2**20}
"""Bytes of a body that are kept so that it can be sent again, until a model server has it. Larger
ones can be sent again only from the cold listener, which takes in less than this."""


UNKNOWN_WORKSPACE = Reply(
    404, ErrorReason.UNKNOWN_WORKSPACE, "no workspace of this name has a deployment"
)


def unmatched() -> list[Message]:
    """For paths of no workspace that is known."""
    nothing = reply_route(
        {"prefix": "/"},
        not_found(
            ErrorReason.NOT_FOUND,
            "nothing is served here; models answer at "
            "/<workspace>/models/<model>?environment=<environment>",
        ),
    )
    return [
        reply_route(
            {"safe_regex": {"regex": "/[^/]+/(models/[^/]|openai/v1/).*"}}, UNKNOWN_WORKSPACE
        ),
        gate.noted(nothing, gate.NOTHING),
    ]


def model_routes(workspace: str, model: str, group: Sequence[Deployment]) -> list[Message]:
    """The routes of one model: by environment, then what is wrong with the request. A longer name
    finds no route here, and gets Envoy's own 404 (:mod:`.listeners`): thousands of routes that all
    say the same would be a tenth of the table."""
    prefix = f"/{workspace}/models/{model}"
    routes: list[Message] = []
    for deployment in group:
        wanted = [
            {
                "name": ENVIRONMENT_PARAMETER,
                "string_match": {"exact": deployment.environment},
            }
        ]
        routes += _deployment_routes(prefix, deployment, query=wanted)
    environments = ", ".join(deployment.environment for deployment in group)
    unknown = not_found(
        ErrorReason.UNKNOWN_ENVIRONMENT,
        f"model {model!r} of workspace {workspace!r} is not deployed in this environment; "
        f"it is in: {environments}",
    )
    # An empty one means the default, as no value does.
    asked = [{"name": ENVIRONMENT_PARAMETER, "string_match": {"safe_regex": {"regex": ".+"}}}]
    routes.append(
        reply_route({"path_separated_prefix": prefix, "query_parameters": asked}, unknown)
    )
    default = next((d for d in group if d.environment == DEFAULT_ENVIRONMENT), None)
    if default is not None:
        routes += _deployment_routes(prefix, default, query=[])
    else:
        unnamed = not_found(
            ErrorReason.UNKNOWN_ENVIRONMENT,
            f"model {model!r} of workspace {workspace!r} is not deployed in environment "
            f"{DEFAULT_ENVIRONMENT!r}, the default; add ?environment= with one of: {environments}",
        )
        routes.append(reply_route({"path_separated_prefix": prefix}, unnamed))
    return routes


def _deployment_routes(
    prefix: str, deployment: Deployment, *, query: list[dict[str, Any]]
) -> list[Message]:
    """The two forms of the path: with something after the model's name, and without."""
    return [
        *serve({"prefix": f"{prefix}/", "query_parameters": query}, deployment, rewrite="/"),
        *serve({"path": prefix, "query_parameters": query}, deployment, rewrite="/"),
    ]


def host_routes(deployment: Deployment, domains: Sequence[str]) -> Message:
    """The virtual host of a deployment, under these of its names."""
    return VirtualHost(
        name=str(deployment.key),
        domains=domains,
        routes=gate.by_host(serve({"prefix": "/"}, deployment)),
        retry_policy=RETRY_POLICY,
        request_body_buffer_limit=KEPT_BODY,
    )


def serve(
    match: dict[str, Any], deployment: Deployment, *, rewrite: str = "", by: str = gate.GATE
) -> list[Message]:
    """Requests that match go to a revision of the deployment, or get the error it has for them.
    What the match says of the path is replaced by ``rewrite``, if there is one. ``by`` is the gate
    that they pass."""
    return gate.led(_serve(match, deployment, rewrite=rewrite), deployment, by=by)


def _serve(match: dict[str, Any], deployment: Deployment, *, rewrite: str) -> list[Message]:
    refusal = refusal_of(deployment)
    if refusal is not None:
        return [reply_route(match, refusal)]
    action: dict[str, Any] = {"timeout": {}}
    if rewrite:
        action["prefix_rewrite"] = rewrite
    shares = [
        Share(r.key.revision, r.key.cluster, r.traffic, stable=r.stable)
        for r in deployment.revisions
    ]
    prompts = prefix_route(deployment.balancing)
    return [
        Route(
            match={**match, **branch.match},
            route={**action, **branch.action},
            **branch.answer,
            **prompts,
        )
        for branch in branches(shares, deployment.sticky)
    ]


def refusal_of(deployment: Deployment) -> Reply | None:
    """Why requests for this deployment are answered with an error, if they are."""
    name = f"model {deployment.model!r} of workspace {deployment.key.workspace!r}"
    where = f"environment {deployment.environment!r}"
    if deployment.duplicate:
        return not_found(
            ErrorReason.DUPLICATE, f"an older deployment already serves {name} in {where}"
        )
    if not deployment.enabled:
        return not_found(ErrorReason.DEACTIVATED, f"{name} is deactivated in {where}")
    if deployment.served:
        return None
    problem = deployment.problem
    if problem is None:
        return Reply(
            503,
            ErrorReason.NOT_READY,
            f"{name} is being prepared in {where}; try again shortly",
            NOT_READY_RETRY,
        )
    return Reply(503, problem.reason, f"{name} in {where}: {problem.message}", NOT_READY_RETRY)


def domains_of(deployment: Deployment, *, settings: GatewaySettings) -> list[str]:
    """The host names it would answer at, if no older deployment has them."""
    workspace, name = deployment.key
    service = f"{name}.{workspace}"
    found = [service, f"{service}.svc", f"{service}.svc.{settings.cluster_domain}"]
    if not deployment.duplicate:
        endpoint = f"{deployment.model}-{deployment.environment}"
        found.insert(0, f"{endpoint}.{workspace}.{settings.domain}")
    return found


def unknown_model(workspace: str) -> Message:
    """For what no other route of the workspace took."""
    return reply_route(
        {"prefix": "/"},
        not_found(
            ErrorReason.UNKNOWN_MODEL, f"workspace {workspace!r} has no deployment of this model"
        ),
    )


def not_found(reason: ErrorReason, message: str) -> Reply:
    """A 404."""
    return Reply(404, reason, message)


def reply_route(match: dict[str, Any], reply: Reply) -> Message:
    """Requests that match get this answer from Envoy itself."""
    route = direct(match, reply.status, body=reply.body, headers=reply.headers)
    # By this name the error is counted and logged.
    route.name = reply.reason
    return route


JSON_HEADERS = {"content-type": "application/json"}


def direct(
    match: dict[str, Any], status: int, *, body: str, headers: Mapping[str, str] = JSON_HEADERS
) -> Message:
    """Requests that match get this document from Envoy itself."""
    return Route(
        match=match,
        direct_response={"status": status, "body": {"inline_string": body}},
        response_headers_to_add=[
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in headers.items()
        ],
    )
