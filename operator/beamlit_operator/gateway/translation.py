"""From what the gateway knows to what Envoy should have. Pure: no clock, no I/O.

Two ways to the same result: :func:`full_state` builds everything, a :class:`Translator` only what a
change touches. Applying the translator's deltas and its routes, and dropping what retired, always
gives the full state; a test holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from beamlit_operator.gateway import names
from beamlit_operator.gateway.catalog import Catalog, Deployment
from beamlit_operator.gateway.clusters import Shape, shapes
from beamlit_operator.gateway.gate import review_listener
from beamlit_operator.gateway.listeners import cold_listener, main_listener, tls_listener
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.resources import Delta, Resource, ResourceType
from beamlit_operator.gateway.routes import refusal_of
from beamlit_operator.gateway.routetable import RouteTable
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.gateway.telemetry import labelled
from beamlit_operator.gateway.trial import RouteTrial


def routed_revisions(deployment: Deployment) -> dict[RevisionKey, Shape]:
    """The revisions of a deployment that requests can reach, each with clusters of its own."""
    return {} if refusal_of(deployment) is not None else shapes(deployment)


def full_state(catalog: Catalog, *, settings: GatewaySettings) -> Delta:
    """All resources for this state of the cluster."""
    routed = [pair for deployment in catalog for pair in routed_revisions(deployment).items()]
    routes = RouteTable(settings)
    routes.take({deployment.key: _routing_view(deployment) for deployment in catalog})
    return {
        ResourceType.CLUSTER: {
            name: cluster
            for key, shape in routed
            for name, cluster in _clusters(key, shape, catalog=catalog, settings=settings).items()
        },
        ResourceType.ENDPOINTS: {
            name: Resource.of(endpoints)
            for key, shape in routed
            for name, endpoints in shape.endpoints(key, catalog.pods(key)).items()
        },
        ResourceType.LISTENER: _listeners(settings),
        ResourceType.ROUTES: {names.ROUTES: _table(routes)},
    }


def _clusters(
    key: RevisionKey, shape: Shape, *, catalog: Catalog, settings: GatewaySettings
) -> dict[str, Resource]:
    deployment = catalog.get(key.deployment_key)
    return {
        name: Resource.of(
            cluster
            if deployment is None
            else labelled(cluster, key, endpoint=deployment.endpoint, settings=settings)
        )
        for name, cluster in shape.clusters(key).items()
    }


def _table(routes: RouteTable) -> Resource:
    return Resource.of_bytes(ResourceType.ROUTES, routes.serialized())


def _listeners(settings: GatewaySettings) -> dict[str, Resource]:
    found = {
        names.MAIN_LISTENER: main_listener(settings),
        names.COLD_LISTENER: cold_listener(settings),
    }
    if settings.tls_listen is not None:
        found[names.TLS_LISTENER] = tls_listener(settings, settings.tls_listen)
    if settings.authentication:
        found[names.REVIEW_LISTENER] = review_listener(settings)
    return {name: Resource.of(listener) for name, listener in found.items()}


def _routing_view(deployment: Deployment) -> Deployment:
    """The deployment without what its routes and clusters do not depend on."""
    refused = refusal_of(deployment) is not None
    return replace(
        deployment,
        generation=0,
        wake_replicas=1,
        problem=deployment.problem if refused else None,
        revisions=tuple(replace(revision, replicas=0) for revision in deployment.revisions),
    )


class Translator:
    """Keeps track of a catalog and says what its changes mean for Envoy."""

    def __init__(self, catalog: Catalog, *, settings: GatewaySettings) -> None:
        self._catalog = catalog
        self._settings = settings
        self._routes = RouteTable(settings)
        self._retired: dict[RevisionKey, Shape] = {}
        self._views: dict[DeploymentKey, Deployment] = {}
        self.trial = RouteTrial()
        """What Envoy takes of the routes; tell it of every answer about the route table."""
        self.rerouted = False
        """Whether routes changed since :meth:`routes` was asked."""

    def start(self) -> Delta:
        """Everything, as the catalog is now."""
        listeners = {ResourceType.LISTENER: _listeners(self._settings)}
        deployments = [deployment.key for deployment in self._catalog]
        return {**self.update(deployments, ()), **self.routes(), **listeners}

    def routes(self) -> Delta:
        """The route table, without what Envoy does not take. Apart from the rest, because it is one
        resource however large it is: changes that come together are worth one table."""
        self.rerouted = False
        while True:
            views = self.trial.propose(self._views)
            self._routes.take(views)
            table = _table(self._routes)
            if not self.trial.offered(table.version, views):
                break
        return {ResourceType.ROUTES: {names.ROUTES: table}}

    @property
    def retired(self) -> frozenset[RevisionKey]:
        """Revisions no route leads to any more, whose clusters are still there.

        A request that is held, or between two attempts, when traffic moves still belongs to the
        cluster it was routed to. The cold listener of that cluster takes it to the new revision.
        """
        return frozenset(self._retired)

    def drop(self, revisions: Iterable[RevisionKey]) -> Delta:
        """Removes those of these revisions that are still retired."""
        gone = self._retired.keys() & set(revisions)
        shapes_gone = {key: self._retired.pop(key) for key in gone}
        removed = dict.fromkeys(
            (name for key, shape in shapes_gone.items() for name in shape.names(key)), None
        )
        return {ResourceType.CLUSTER: removed, ResourceType.ENDPOINTS: removed}

    def update(
        self, deployments: Iterable[DeploymentKey], revisions: Iterable[RevisionKey]
    ) -> Delta:
        """What changes beside routes because these deployments, and the pods of these revisions,
        moved.

        A deployment whose scale or condition alone moved changes nothing; pods that come and go
        change the endpoints of their revision alone.
        """
        clusters: dict[str, Resource | None] = {}
        endpoints: dict[str, Resource | None] = {}
        touched = set(revisions)
        for key in deployments:
            old = self._views.pop(key, None)
            current = self._catalog.get(key)
            new = _routing_view(current) if current is not None else None
            if new is not None:
                self._views[key] = new
            if old == new:
                continue
            self.rerouted = True
            for revision, known, shape in self._reshaped(old, new):
                touched.add(revision)
                for name in known.names(revision) if known is not None else ():
                    clusters[name] = endpoints[name] = None
                clusters |= _clusters(
                    revision, shape, catalog=self._catalog, settings=self._settings
                )
        for revision in touched:
            current_shape = self._shape(revision)
            if current_shape is not None:
                found = current_shape.endpoints(revision, self._catalog.pods(revision))
                endpoints |= {name: Resource.of(each) for name, each in found.items()}
        return {ResourceType.CLUSTER: clusters, ResourceType.ENDPOINTS: endpoints}

    def _reshaped(
        self, old: Deployment | None, new: Deployment | None
    ) -> Iterator[tuple[RevisionKey, Shape | None, Shape]]:
        """The revisions whose clusters are new or another now, with what they were like; retires
        those that lost their traffic."""
        before = routed_revisions(old) if old is not None else {}
        after = routed_revisions(new) if new is not None else {}
        self._retired |= {key: shape for key, shape in before.items() if key not in after}
        for key, shape in after.items():
            known = before.get(key) or self._retired.pop(key, None)
            if known != shape:
                yield key, known, shape

    def kept(self, revisions: Iterable[RevisionKey]) -> frozenset[RevisionKey]:
        """Those of these revisions that routes still lead to because Envoy refused newer ones."""
        return frozenset(
            key
            for key in revisions
            if (view := self.trial.last_good(key.deployment_key)) is not None
            and key in routed_revisions(view)
        )

    def routed(self, revisions: Iterable[RevisionKey]) -> frozenset[RevisionKey]:
        """Those of these revisions that a route leads to."""
        return frozenset(key for key in revisions if self._is_routed(key))

    def _is_routed(self, key: RevisionKey) -> bool:
        view = self._views.get(key.deployment_key)
        return view is not None and key in routed_revisions(view)

    def _shape(self, key: RevisionKey) -> Shape | None:
        """What the clusters of a revision are like, as long as there are any."""
        view = self._views.get(key.deployment_key)
        routed = routed_revisions(view) if view is not None else {}
        return routed.get(key) or self._retired.get(key)
