"""The route table: which request goes to which revision. Pure.

================================================  ==================================================
request                                           where it goes
================================================  ==================================================
``/{ws}/models/{model}[/rest][?environment=e]``   the deployment of (ws, model, e), as ``/rest``;
                                                  without ``environment``: ``production``
host ``{model}-{e}.{ws}.{domain}``                the same deployment, target as sent
host ``{md}.{ns}[.svc[.{cluster domain}]]``       the ModelDeployment ``md`` of workspace ``ns``
...of a deactivated deployment                    404 ``Deactivated``
...of one that has no revision yet                503 with the reason of its ``Ready`` condition
``/{ws}/models/...``, ws known                    404 ``UnknownModel`` or ``UnknownEnvironment``
``/{ws}/models/...``, ws not known                404 ``UnknownWorkspace``
anything else                                     404 ``NotFound``
================================================  ==================================================

Lookup must not slow down with the number of deployments: hosts are exact domains (a hash), paths a
``prefix_match_map`` (a trie). The longest prefix wins, and the short list of routes under it checks
that the prefix ends at a path segment, and which environment is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from beamlit_operator.gateway import names
from beamlit_operator.gateway.catalog import DEFAULT_ENVIRONMENT, Deployment
from beamlit_operator.gateway.names import DeploymentKey
from beamlit_operator.gateway.protos import (
    Matcher,
    Message,
    PreviousHosts,
    RequestHeaderInput,
    Route,
    RouteConfiguration,
    RouteList,
    VirtualHost,
    packed,
)
from beamlit_operator.gateway.replies import ErrorReason, Reply
from beamlit_operator.gateway.settings import GatewaySettings

ENVIRONMENT_PARAMETER = "environment"

NOT_READY_RETRY = 2.0
"""Seconds after which a caller may ask again for a deployment that is being prepared."""

# Sent again only while no model server can have seen the request: connections that failed, streams
# that were refused, resets before the request's headers went out, and answers of the cold listener
# that say so. The attempts span about two seconds: longer than an EndpointSlice lags behind a pod
# that went away, or than an agent takes to restart.
_RETRY: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers",
    "retriable_headers": [{"name": names.RETRY_HEADER, "present_match": True}],
    "num_retries": {"value": 8},
    "retry_back_off": {"base_interval": {"nanos": 25_000_000}, "max_interval": {"seconds": 1}},
    "retry_host_predicate": [
        {"name": "another_pod", "typed_config": packed(PreviousHosts())},
    ],
    "host_selection_retry_max_attempts": 3,
}


_KEPT_BODY = {"value": 2**20}
"""Bytes of a body that are kept so that it can be sent again, until a model server has it. Larger
ones can be sent again only from the cold listener, which takes in less than this."""


Models = dict[tuple[str, str], list[Deployment]]


class RouteTable:
    """Builds the route table, again and again; what did not change is taken from the last time."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._models: dict[tuple[str, str], tuple[list[Deployment], Message]] = {}
        self._hosts: dict[DeploymentKey, tuple[Deployment, list[str], Message]] = {}

    def build(self, deployments: Iterable[Deployment]) -> Message:
        """The whole route table. Equal input gives an equal message, in any order."""
        # The older deployment owns a path or a host, as it owns the endpoint.
        ordered = sorted(deployments, key=lambda d: (d.duplicate, d.created, d.key))
        return RouteConfiguration(
            name=names.ROUTES,
            ignore_port_in_host_matching=True,
            max_direct_response_body_size_bytes={"value": 16_384},
            request_headers_to_add=[
                {
                    "header": {"key": names.REVISION_HEADER, "value": "%UPSTREAM_CLUSTER%"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            # X-Forwarded-For says the same.
            request_headers_to_remove=["x-envoy-external-address"],
            response_headers_to_remove=[names.RETRY_HEADER],
            virtual_hosts=[
                VirtualHost(
                    name="paths",
                    domains=["*"],
                    retry_policy=_RETRY,
                    request_body_buffer_limit=_KEPT_BODY,
                    **self._path_lookup(_by_model(ordered)),
                ),
                *self._host_lookup(ordered),
            ],
        )

    def _path_lookup(self, models: Models) -> dict[str, Any]:
        if not models:
            # A prefix map may not be empty.
            return {"routes": _unmatched()}
        self._models = {key: self._model(key, group) for key, group in models.items()}
        prefixes = {
            f"/{workspace}/models/": _on_match([_unknown_model(workspace)])
            for workspace in {workspace for workspace, _ in models}
        }
        for (workspace, model), (_, routes) in self._models.items():
            prefixes[f"/{workspace}/models/{model}"] = routes
        return {
            "matcher": Matcher(
                matcher_tree={
                    "input": {
                        "name": "path",
                        "typed_config": packed(RequestHeaderInput(header_name=":path")),
                    },
                    "prefix_match_map": {"map": prefixes},
                },
                on_no_match=_on_match(_unmatched()),
            )
        }

    def _model(
        self, key: tuple[str, str], group: list[Deployment]
    ) -> tuple[list[Deployment], Message]:
        known = self._models.get(key)
        if known is not None and known[0] == group:
            return known
        return group, _on_match(_model_routes(*key, group))

    def _host_lookup(self, ordered: Sequence[Deployment]) -> list[Message]:
        # One domain twice and Envoy refuses the table: who is first in order has it.
        taken: set[str] = set()
        hosts: dict[DeploymentKey, tuple[Deployment, list[str], Message]] = {}
        for deployment in ordered:
            domains = [d for d in _domains(deployment, settings=self._settings) if d not in taken]
            taken.update(domains)
            if domains:
                hosts[deployment.key] = self._host(deployment, domains)
        self._hosts = hosts
        return [hosts[key][2] for key in sorted(hosts)]

    def _host(
        self, deployment: Deployment, domains: list[str]
    ) -> tuple[Deployment, list[str], Message]:
        known = self._hosts.get(deployment.key)
        if known is not None and known[:2] == (deployment, domains):
            return known
        host = VirtualHost(
            name=str(deployment.key),
            domains=domains,
            routes=[_serve({"prefix": "/"}, deployment, rewrite=False)],
            retry_policy=_RETRY,
            request_body_buffer_limit=_KEPT_BODY,
        )
        return deployment, domains, host


def _by_model(ordered: Sequence[Deployment]) -> Models:
    """(workspace, model) to its deployments, one for each environment."""
    found: dict[tuple[str, str], dict[str, Deployment]] = defaultdict(dict)
    for deployment in ordered:
        group = found[(deployment.key.workspace, deployment.model)]
        group.setdefault(deployment.environment, deployment)
    return {key: [group[env] for env in sorted(group)] for key, group in sorted(found.items())}


def _unmatched() -> list[Message]:
    return [
        _reply(
            {"safe_regex": {"regex": "/[^/]+/models/[^/].*"}},
            _not_found(ErrorReason.UNKNOWN_WORKSPACE, "no workspace of this name has a deployment"),
        ),
        _reply(
            {"prefix": "/"},
            _not_found(
                ErrorReason.NOT_FOUND,
                "nothing is served here; models answer at "
                "/<workspace>/models/<model>?environment=<environment>",
            ),
        ),
    ]


def _on_match(routes: list[Message]) -> Message:
    action = {"name": "routes", "typed_config": packed(RouteList(routes=routes))}
    return Matcher.OnMatch(action=action)


def _model_routes(workspace: str, model: str, group: list[Deployment]) -> list[Message]:
    """The routes of one model: by environment, then what is wrong with the request."""
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
    unknown = _not_found(
        ErrorReason.UNKNOWN_ENVIRONMENT,
        f"model {model!r} of workspace {workspace!r} is not deployed in this environment; "
        f"it is in: {environments}",
    )
    asked = [{"name": ENVIRONMENT_PARAMETER, "present_match": True}]
    routes.append(_reply({"path_separated_prefix": prefix, "query_parameters": asked}, unknown))
    default = next((d for d in group if d.environment == DEFAULT_ENVIRONMENT), None)
    if default is not None:
        routes += _deployment_routes(prefix, default, query=[])
    else:
        unnamed = _not_found(
            ErrorReason.UNKNOWN_ENVIRONMENT,
            f"model {model!r} of workspace {workspace!r} is not deployed in environment "
            f"{DEFAULT_ENVIRONMENT!r}, the default; add ?environment= with one of: {environments}",
        )
        routes.append(_reply({"path_separated_prefix": prefix}, unnamed))
    # The prefix matched in the middle of a longer name.
    routes.append(_unknown_model(workspace))
    return routes


def _deployment_routes(
    prefix: str, deployment: Deployment, *, query: list[dict[str, Any]]
) -> list[Message]:
    """The two forms of the path: with something after the model's name, and without."""
    return [
        _serve({"prefix": f"{prefix}/", "query_parameters": query}, deployment, rewrite=True),
        _serve({"path": prefix, "query_parameters": query}, deployment, rewrite=True),
    ]


def _serve(match: dict[str, Any], deployment: Deployment, *, rewrite: bool) -> Message:
    refusal = refusal_of(deployment)
    if refusal is not None:
        return _reply(match, refusal)
    action: dict[str, Any] = {"timeout": {}}
    if rewrite:
        action["prefix_rewrite"] = "/"
    revisions = deployment.revisions
    if len(revisions) == 1:
        action["cluster"] = revisions[0].key.cluster
    else:
        action["weighted_clusters"] = {
            "clusters": [{"name": r.key.cluster, "weight": {"value": r.traffic}} for r in revisions]
        }
    return Route(match=match, route=action)


def refusal_of(deployment: Deployment) -> Reply | None:
    """Why requests for this deployment are answered with an error, if they are."""
    name = f"model {deployment.model!r} of workspace {deployment.key.workspace!r}"
    where = f"environment {deployment.environment!r}"
    if deployment.duplicate:
        return _not_found(
            ErrorReason.DUPLICATE, f"an older deployment already serves {name} in {where}"
        )
    if not deployment.enabled:
        return _not_found(ErrorReason.DEACTIVATED, f"{name} is deactivated in {where}")
    if deployment.revisions:
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


def _domains(deployment: Deployment, *, settings: GatewaySettings) -> list[str]:
    workspace, name = deployment.key
    service = f"{name}.{workspace}"
    found = [service, f"{service}.svc", f"{service}.svc.{settings.cluster_domain}"]
    if not deployment.duplicate:
        endpoint = f"{deployment.model}-{deployment.environment}"
        found.insert(0, f"{endpoint}.{workspace}.{settings.domain}")
    return found


def _unknown_model(workspace: str) -> Message:
    return _reply(
        {"prefix": "/"},
        _not_found(
            ErrorReason.UNKNOWN_MODEL, f"workspace {workspace!r} has no deployment of this model"
        ),
    )


def _not_found(reason: ErrorReason, message: str) -> Reply:
    return Reply(404, reason, message)


def _reply(match: dict[str, Any], reply: Reply) -> Message:
    return Route(
        match=match,
        direct_response={"status": reply.status, "body": {"inline_string": reply.body}},
        response_headers_to_add=[
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in reply.headers.items()
        ],
    )
