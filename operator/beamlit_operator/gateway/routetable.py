"""The route table, kept up to date change by change.

Lookup must not slow down with the number of deployments: hosts are exact domains (a hash), paths
and models in bodies are trees (:mod:`.trees`). Nor may a change: the table is one resource for
Envoy, but all its parts are kept serialised, and a change makes anew those of the model it is about
and joins the rest.

================================  =================================================================
part                              made anew when
================================  =================================================================
routes of a model, by path and    a deployment of this model changed
by ``model`` in a body
virtual host of a deployment      it changed, or another one gave up or took one of its names
what belongs to a workspace       one of its models changed
================================  =================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from beamlit_operator.gateway import names, openai, trees
from beamlit_operator.gateway.catalog import Deployment
from beamlit_operator.gateway.names import DeploymentKey, Workspace
from beamlit_operator.gateway.protos import RouteConfiguration, VirtualHost
from beamlit_operator.gateway.routes import (
    KEPT_BODY,
    RETRY_POLICY,
    domains_of,
    host_routes,
    model_routes,
    unknown_model,
    unmatched,
)
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.wire import Field, serialized

_HOST = Field(RouteConfiguration, "virtual_hosts")
_MATCHER = Field(VirtualHost, "matcher")

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Model:
    """The parts that one model has in the table of its workspace."""

    by_path: bytes
    calls: bytes
    single: bytes
    listed: Sequence[str]
    public: bool


class RouteTable:
    """Builds the route table, again and again. Equal input gives an equal table, in any order."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._deployments: dict[DeploymentKey, Deployment] = {}
        self._groups: dict[tuple[Workspace, str], set[DeploymentKey]] = defaultdict(set)
        self._claims: dict[str, set[DeploymentKey]] = defaultdict(set)
        self._models: dict[Workspace, dict[str, _Model]] = defaultdict(dict)
        self._workspaces: dict[Workspace, bytes] = {}
        self._hosts: dict[DeploymentKey, bytes] = {}
        self._dirty_models: set[tuple[Workspace, str]] = set()
        self._dirty_hosts: set[DeploymentKey] = set()
        self._first, self._last = _frame()
        last = (
            [*openai.unmatched(settings), *unmatched()] if settings.authentication else unmatched()
        )
        self._unmatched = trees.routes(last)
        self._no_routes = serialized(VirtualHost(routes=last))

    def take(self, deployments: Mapping[DeploymentKey, Deployment]) -> None:
        """These are the deployments from now on."""
        for key in self._deployments.keys() - deployments.keys():
            self._put(key, None)
        for key, deployment in deployments.items():
            known = self._deployments.get(key)
            # Those that did not change are the same objects, most of the time.
            if known is not deployment and known != deployment:
                self._put(key, deployment)

    def _put(self, key: DeploymentKey, new: Deployment | None) -> None:
        old = self._deployments.pop(key, None)
        if new is not None:
            self._deployments[key] = new
        self._dirty_models |= _group(old) | _group(new)
        before, after = set(self._domains(old)), set(self._domains(new))
        self._dirty_hosts.add(key)
        for domain in before | after:
            self._dirty_hosts |= self._claims.get(domain, set())
        _move(self._claims, key, before, after)
        _move(self._groups, key, _group(old), _group(new))

    def _domains(self, deployment: Deployment | None) -> Sequence[str]:
        return domains_of(deployment, settings=self._settings) if deployment is not None else ()

    def serialized(self) -> bytes:
        """The RouteConfiguration as it is now."""
        self._refresh()
        branches = b"".join(self._workspaces[name] for name in sorted(self._workspaces))
        # A tree may not be empty.
        paths = (
            _MATCHER(trees.by_path(branches, otherwise=self._unmatched))
            if branches
            else self._no_routes
        )
        hosts = [self._hosts[key] for key in sorted(self._hosts)]
        return b"".join((self._first, _HOST(self._last + paths), *hosts))

    def _refresh(self) -> None:
        models, self._dirty_models = self._dirty_models, set()
        for workspace, model in models:
            group = self._group(workspace, model)
            if group:
                self._models[workspace][model] = _model(workspace, model, group)
            else:
                self._models[workspace].pop(model, None)
        for workspace in {workspace for workspace, _ in models}:
            if self._models[workspace]:
                self._workspaces[workspace] = self._workspace(workspace)
            else:
                del self._models[workspace]
                self._workspaces.pop(workspace, None)
        keys, self._dirty_hosts = self._dirty_hosts, set()
        for key in keys:
            self._refresh_host(key)

    def _group(self, workspace: Workspace, model: str) -> list[Deployment]:
        """A model's deployments, one for each environment: the oldest owns the endpoint."""
        found: dict[str, Deployment] = {}
        for deployment in self._in_order(self._groups.get((workspace, model), ())):
            found.setdefault(deployment.environment, deployment)
        return [self._view(found[environment]) for environment in sorted(found)]

    def _view(self, deployment: Deployment) -> Deployment:
        return replace(deployment, guarded=True) if self._settings.authentication else deployment

    def _in_order(self, keys: Iterable[DeploymentKey]) -> list[Deployment]:
        return sorted(
            (self._deployments[key] for key in keys), key=lambda d: (d.duplicate, d.created, d.key)
        )

    def _workspace(self, workspace: Workspace) -> bytes:
        models = [model for _, model in sorted(self._models[workspace].items())]
        return b"".join(
            (
                trees.branch(f"/{workspace}/models/", trees.routes([unknown_model(workspace)])),
                *(model.by_path for model in models),
                openai.workspace_branches(
                    workspace,
                    calls=b"".join(model.calls for model in models),
                    singles=b"".join(model.single for model in models),
                    listed=(entry for model in models for entry in model.listed),
                    public=any(model.public for model in models),
                    settings=self._settings,
                ),
            )
        )

    def _refresh_host(self, key: DeploymentKey) -> None:
        deployment = self._deployments.get(key)
        # One domain twice and Envoy refuses the table: who is first in order has it.
        owned = [d for d in self._domains(deployment) if self._owner(d) is deployment]
        if deployment is not None and owned:
            self._hosts[key] = _HOST(serialized(host_routes(self._view(deployment), owned)))
        else:
            self._hosts.pop(key, None)

    def _owner(self, domain: str) -> Deployment:
        return self._in_order(self._claims[domain])[0]


def _frame() -> tuple[bytes, bytes]:
    """What stands before the virtual hosts, and what the one of the paths has beside its tree."""
    table = RouteConfiguration(
        name=names.ROUTES,
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes={"value": openai.LIST_LIMIT},
        request_headers_to_add=[
            {
                "header": {"key": names.CLUSTER_HEADER, "value": "%UPSTREAM_CLUSTER%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        # X-Forwarded-For says the same.
        request_headers_to_remove=["x-envoy-external-address", names.WAY_HEADER],
        response_headers_to_remove=[names.RETRY_HEADER],
    )
    paths = VirtualHost(
        name="paths",
        domains=["*"],
        retry_policy=RETRY_POLICY,
        request_body_buffer_limit=KEPT_BODY,
    )
    return serialized(table), serialized(paths)


def _model(workspace: Workspace, model: str, group: Sequence[Deployment]) -> _Model:
    return _Model(
        by_path=trees.branch(
            f"/{workspace}/models/{model}", trees.routes(model_routes(workspace, model, group))
        ),
        calls=openai.calls(workspace, model, group),
        single=openai.single(workspace, model, group),
        listed=openai.entries(group),
        public=any(deployment.public for deployment in group),
    )


def _group(deployment: Deployment | None) -> set[tuple[Workspace, str]]:
    return {(deployment.key.workspace, deployment.model)} if deployment is not None else set()


def _move(
    index: dict[K, set[DeploymentKey]], key: DeploymentKey, before: set[K], after: set[K]
) -> None:
    """Keeps an index of deployments: ``key`` was under ``before`` and is under ``after``."""
    for gone in before - after:
        index[gone].discard(key)
        if not index[gone]:
            del index[gone]
    for come in after - before:
        index[come].add(key)
