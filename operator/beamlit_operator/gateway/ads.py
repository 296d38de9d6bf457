"""The incremental ADS server: keeps Envoy's configuration equal to the resource store.

One stream carries all types (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol,
"Incremental xDS"). For each type the stream remembers what Envoy subscribed to and which version it
was sent, so the work and the bytes are in proportion to what changed.

What Envoy refuses: it names the culprit rarely, and one bad resource may take its whole response
with it. So a refused response of several resources is sent again in halves until the culprits stand
alone: those are reported and left out, everything else gets through.

Make before break: routes that name new clusters wait until Envoy has those clusters and their
endpoints; clusters no route names any more go away after the routes were taken.

An Envoy that comes back asks for its types in any order. While one of its clusters has no endpoints
yet it keeps back whatever it has to say about clusters (``ClusterManagerImpl::updateClusterCounts``
pauses them), its first question on a new stream too: endpoints, listeners and routes are asked for
first. So routes wait for that question, and what Envoy waits for without our having it is answered
at once, for the question may wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import grpc

from beamlit_operator.gateway.metrics import GatewayMetrics
from beamlit_operator.gateway.protos import (
    AdsServicer,
    DeltaResponse,
    DiscoveryResource,
    Message,
)
from beamlit_operator.gateway.resources import ResourceStore, ResourceType
from beamlit_operator.gateway.warming import WarmingPatience

log = logging.getLogger(__name__)

RETIREMENT = 30.0
"""Seconds a cluster stays after traffic left it, for requests that were on their way to it."""

Names = Mapping[ResourceType, set[str]]

# Endpoints are asked for only once there is a cluster.
_ALWAYS_ASKED = (ResourceType.CLUSTER, ResourceType.LISTENER, ResourceType.ROUTES)


@dataclass(slots=True)
class _Subscription:
    """One type on one stream."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    in_flight: dict[str, dict[str, str]] = field(default_factory=dict)
    """By nonce: the names of a response, with the versions that were sent; "" is a removal."""
    suspects: list[set[str]] = field(default_factory=list)
    """Parts of refused responses, to be sent each on its own."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Envoy's words on what it does not take, by name."""
    started: bool = False
    unanswered: bool = False
    """Everything was asked for and nothing was sent yet: an empty answer is an answer too, without
    which Envoy does not go on starting."""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


@dataclass(frozen=True, slots=True)
class Settled:
    """Envoy's answer to one response.

    Attributes:
        type: of the resources.
        versions: those it took or refused by name; "" is a removal.
        refused: its words, if it took nothing or not all of them.
        culprit: whether the refusal is about the one resource in ``versions``; else the parts are
            sent again to find out.
    """

    type: ResourceType
    versions: Mapping[str, str]
    refused: str = ""

    @property
    def culprit(self) -> bool:
        return bool(self.refused) and len(self.versions) == 1


class AdsStream:
    """What one Envoy has, and what it should be told next. No I/O."""

    def __init__(self, store: ResourceStore) -> None:
        self._store = store
        self._types = {type_: _Subscription() for type_ in ResourceType}
        self._nonces = itertools.count(1)
        self._warm: set[str] = set()
        self._given_up: set[str] = set()
        self._warming: set[str] = set()
        """Clusters that Envoy was sent, but has no endpoints for: it does not use them yet. Kept
        from change to change, as looking for them would take longer the more clusters there are."""
        self._leftovers: set[str] = set()

    @property
    def configured(self) -> bool:
        """Whether Envoy has taken all there is: nothing to send, nothing unanswered, and listeners
        and routes accepted. A refused cluster is no reason not to serve all others."""
        asked = all(self._types[type_].started for type_ in _ALWAYS_ASKED)
        return (
            asked
            and not any(s.dirty or s.in_flight or s.suspects for s in self._types.values())
            and not self._types[ResourceType.LISTENER].refusals
            and not self._types[ResourceType.ROUTES].refusals
        )

    def changed(self, names: Names) -> None:
        """The store changed."""
        for type_, changed in names.items():
            subscription = self._types[type_]
            if subscription.started:
                subscription.dirty |= {name for name in changed if subscription.wants(name)}
        for type_ in (ResourceType.CLUSTER, ResourceType.ENDPOINTS):
            self._find_warming(names.get(type_, ()))

    def receive(self, request: Message) -> Settled | None:
        """Takes a request in; answers what became of a response, if it is about one."""
        try:
            type_ = ResourceType(request.type_url)
        except ValueError:
            log.warning("envoy asks for resources of unknown type %s", request.type_url)
            return None
        subscription = self._types[type_]
        self._subscribe(type_, subscription, request)
        if not request.response_nonce:
            return self._has_already(type_, request.initial_resource_versions)
        versions = subscription.in_flight.pop(request.response_nonce, {})
        refused = str(request.error_detail.message) if request.HasField("error_detail") else ""
        settled = Settled(type_, versions, refused)
        names = set(versions)
        if refused and len(names) > 1:
            ordered = sorted(names)
            half = len(ordered) // 2
            subscription.suspects += [set(ordered[:half]), set(ordered[half:])]
            return settled
        for name in names:
            subscription.refusals.pop(name, None)
        if settled.culprit:
            # What was refused counts as sent: Envoy keeps the last good state, and is sent the
            # next one when there is one.
            subscription.refusals.update(dict.fromkeys(names, refused))
            if type_ in (ResourceType.CLUSTER, ResourceType.ENDPOINTS):
                self._given_up |= names & self._store[ResourceType.CLUSTER].keys()
                self._warming -= names
        elif type_ is ResourceType.ENDPOINTS:
            # Of what was removed nothing is kept: revisions come and go for as long as Envoy runs.
            there = names & self._store[type_].keys()
            self._warm |= there
            self._warm -= names - there
            self._warming -= names
        return settled

    def _has_already(self, type_: ResourceType, versions: Mapping[str, str]) -> Settled | None:
        """What Envoy took by an earlier stream, which may have ended before it could say so."""
        known = self._store[type_]
        same = {n: v for n, v in versions.items() if n in known and known[n].version == v}
        return Settled(type_, same) if same else None

    def _subscribe(self, type_: ResourceType, to: _Subscription, request: Message) -> None:
        asked = set(request.resource_names_subscribe)
        if not to.started:
            to.started = True
            # No names in the first request is the old way to ask for everything.
            to.wildcard = "*" in asked or (
                not asked and type_ in (ResourceType.CLUSTER, ResourceType.LISTENER)
            )
            to.sent.update(request.initial_resource_versions)
            to.names |= asked - {"*"}
            if type_ is ResourceType.ENDPOINTS:
                self._warm |= to.sent.keys()
                self._warming -= self._warm
                if not self._types[ResourceType.CLUSTER].started:
                    # Some cluster has no endpoints yet. It may be one that was made anew, and Envoy
                    # tells of those it had for the one before.
                    to.sent.clear()
            if type_ is ResourceType.CLUSTER:
                self._find_warming(to.sent)
            if to.wildcard:
                to.unanswered = True
                to.dirty |= set(self._store[type_])
                self._find_leftovers(type_, to)
            to.dirty |= to.names
            return
        if "*" in asked:
            to.wildcard = True
            to.dirty |= set(self._store[type_])
        for name in asked - {"*"}:
            # A name asked for again is to be sent again, whatever was sent before.
            to.names.add(name)
            to.sent.pop(name, None)
            to.dirty.add(name)
        for name in request.resource_names_unsubscribe:
            if name == "*":
                to.wildcard = False
                continue
            to.names.discard(name)
            to.sent.pop(name, None)
            to.dirty.discard(name)

    def _find_leftovers(self, type_: ResourceType, to: _Subscription) -> None:
        """What an earlier agent sent and is not there any more."""
        gone = to.sent.keys() - self._store[type_].keys()
        if type_ is ResourceType.CLUSTER:
            self._leftovers = set(gone)
        else:
            to.dirty |= gone

    def taken(self, endpoints: str) -> bool:
        """Whether Envoy has these endpoints as they are now."""
        subscription, resource = (
            self._types[ResourceType.ENDPOINTS],
            self._store[ResourceType.ENDPOINTS].get(endpoints),
        )
        waiting = any(endpoints in names for names in subscription.in_flight.values())
        sent = subscription.sent.get(endpoints)
        return resource is not None and sent == resource.version and not waiting

    @property
    def remembered(self) -> frozenset[str]:
        """The clusters of which is kept whether Envoy uses them."""
        return frozenset(self._warm | self._given_up)

    @property
    def has_leftovers(self) -> bool:
        """Whether Envoy has clusters of an earlier agent's time."""
        return bool(self._leftovers)

    def drop_leftovers(self) -> None:
        """Those clusters may go now."""
        self._types[ResourceType.CLUSTER].dirty |= self._leftovers
        self._leftovers = set()

    @property
    def warming(self) -> Set[str]:
        """The clusters that hold routes back until they are there."""
        return self._warming if self._types[ResourceType.ROUTES].dirty else frozenset()

    def give_up_warming(self, clusters: Set[str]) -> None:
        """Routes go out though these clusters are not there."""
        self._given_up |= clusters
        self._warming -= clusters

    def _find_warming(self, clusters: Iterable[str]) -> None:
        sent, known = self._types[ResourceType.CLUSTER].sent, self._store[ResourceType.CLUSTER]
        # An aggregate of other clusters has no endpoints of its own.
        with_endpoints = self._store[ResourceType.ENDPOINTS]
        for name in clusters:
            used = name in self._warm or name in self._given_up
            if name in sent and name in known and name in with_endpoints and not used:
                self._warming.add(name)
            else:
                self._warming.discard(name)

    def next_responses(self) -> list[Message]:
        """What to send now, in order."""
        clusters, routes = self._types[ResourceType.CLUSTER], self._types[ResourceType.ROUTES]
        added = self._dirty(ResourceType.CLUSTER, present=True)
        # A cluster that is new to Envoy, even if it had one of this name before, warms again.
        self._warm -= {name for name in added if name not in clusters.sent}
        self._resend_endpoints(added)
        responses = [
            *(self._respond(type_, names) for type_, names in self._take_suspects()),
            self._respond(ResourceType.CLUSTER, added),
            self._respond(
                ResourceType.ENDPOINTS, self._dirty(ResourceType.ENDPOINTS, present=True)
            ),
            self._respond(ResourceType.LISTENER, self._types[ResourceType.LISTENER].dirty),
        ]
        self._find_warming(added)
        responses.append(self._respond(ResourceType.ENDPOINTS, self._asked_in_vain()))
        # One table at a time: while Envoy works on one, what changes is kept for the next.
        may_go = (
            clusters.started
            and not clusters.in_flight
            and not routes.in_flight
            and not self._warming
        )
        if routes.dirty and may_go:
            responses.append(self._respond(ResourceType.ROUTES, routes.dirty))
        if not routes.dirty and not routes.in_flight:
            responses += [
                self._respond(type_, self._dirty(type_, present=False))
                for type_ in (ResourceType.CLUSTER, ResourceType.ENDPOINTS)
            ]
        return [response for response in responses if response is not None]

    def _asked_in_vain(self) -> set[str]:
        """Endpoints that Envoy asked for, never had, and that there are none of."""
        had = self._types[ResourceType.ENDPOINTS].sent
        return {
            name for name in self._dirty(ResourceType.ENDPOINTS, present=False) if name not in had
        }

    def _take_suspects(self) -> list[tuple[ResourceType, set[str]]]:
        """The parts of refused responses, to be sent whatever was sent before."""
        parts = [(type_, part) for type_, to in self._types.items() for part in to.suspects]
        for type_, part in parts:
            for name in part:
                if name in self._store[type_]:
                    self._types[type_].sent.pop(name, None)
                else:
                    # Refused along with others: Envoy has it still.
                    self._types[type_].sent[name] = ""
        for to in self._types.values():
            to.suspects = []
        return parts

    def _resend_endpoints(self, clusters: set[str]) -> None:
        """A cluster that changed is made anew and wants its endpoints once more; Envoy asks for
        them only if it had none under this name."""
        known, sent = self._store[ResourceType.CLUSTER], self._types[ResourceType.CLUSTER].sent
        endpoints = self._types[ResourceType.ENDPOINTS]
        for name in clusters & endpoints.names:
            if name in sent and sent[name] != known[name].version:
                endpoints.sent.pop(name, None)
                endpoints.dirty.add(name)

    def _dirty(self, type_: ResourceType, *, present: bool) -> set[str]:
        known = self._store[type_]
        return {name for name in self._types[type_].dirty if (name in known) is present}

    def _respond(self, type_: ResourceType, names: set[str]) -> Message | None:
        subscription, known = self._types[type_], self._store[type_]
        if not names and not subscription.unanswered:
            return None
        subscription.dirty = subscription.dirty - names
        present: list[Message] = []
        removed: list[str] = []
        versions: dict[str, str] = {}
        for name in sorted(names):
            resource = known.get(name)
            if resource is None:
                # Envoy is told so even of a name it never had: it may be waiting for it.
                if type_ is ResourceType.CLUSTER:
                    for known_of in (self._warm, self._given_up, self._warming):
                        known_of.discard(name)
                subscription.refusals.pop(name, None)
                versions[name] = ""
                if name in subscription.sent or name in subscription.names:
                    subscription.sent.pop(name, None)
                    removed.append(name)
            elif subscription.sent.get(name) != resource.version:
                subscription.sent[name] = versions[name] = resource.version
                present.append(
                    DiscoveryResource(name=name, version=resource.version, resource=resource.body)
                )
        if not present and not removed and not subscription.unanswered:
            return None
        subscription.unanswered = False
        nonce = str(next(self._nonces))
        subscription.in_flight[nonce] = versions
        return DeltaResponse(
            type_url=type_.value, nonce=nonce, resources=present, removed_resources=removed
        )


class AdsServer(AdsServicer):  # type: ignore[misc]
    """Serves the store to Envoy once it is complete."""

    def __init__(
        self,
        store: ResourceStore,
        *,
        metrics: GatewayMetrics,
        complete: asyncio.Event,
        on_configured: Callable[[object, bool], None],
        on_settled: Callable[[Settled], None],
    ) -> None:
        """``complete`` is set once the store holds the whole cluster: an Envoy that was configured
        by an earlier agent must not be told that everything is gone. ``on_configured`` hears, for
        each stream, whether its Envoy has taken all, and at its end that it has not; ``on_settled``
        hears what Envoy took and refused."""
        self._store = store
        self._metrics = metrics
        self._complete = complete
        self._on_configured = on_configured
        self._on_settled = on_settled
        self._streams: set[AdsStream] = set()
        self._asked: dict[tuple[AdsStream, str], float] = {}

    @property
    def connected(self) -> bool:
        """Whether an Envoy is there."""
        return bool(self._streams)

    @property
    def unanswered(self) -> float:
        """Seconds for which Envoy has owed an answer to what it was sent; 0 when it owes none."""
        if not self._asked:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._asked.values())

    def taken(self, endpoints: str) -> bool:
        """Whether an Envoy has these endpoints as they are now."""
        return any(stream.taken(endpoints) for stream in self._streams)

    async def DeltaAggregatedResources(  # noqa: N802 (the name in the .proto)
        self, _requests: Any, context: Any
    ) -> None:
        """One Envoy's stream, until it ends."""
        stream, wake = AdsStream(self._store), asyncio.Event()

        def changed(names: Names) -> None:
            stream.changed(names)
            wake.set()

        unsubscribe = self._store.subscribe(changed)
        self._streams.add(stream)
        reader = asyncio.create_task(self._read(stream, context, wake))
        try:
            await self._complete.wait()
            await self._write(stream, context, wake, reader)
        finally:
            unsubscribe()
            self._streams.discard(stream)
            self._asked = {key: at for key, at in self._asked.items() if key[0] is not stream}
            self._on_configured(stream, False)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _write(
        self, stream: AdsStream, context: Any, wake: asyncio.Event, reader: asyncio.Task[None]
    ) -> None:
        loop, patience = asyncio.get_running_loop(), WarmingPatience()
        leftovers_go = loop.time() + RETIREMENT
        while not reader.done():
            wake.clear()
            for response in stream.next_responses():
                self._metrics.xds_sent(response)
                self._asked[(stream, response.nonce)] = loop.time()
                await context.write(response)
            if stream.configured:
                self._on_configured(stream, True)
            limit = patience.left(stream.warming, loop.time())
            if limit is not None and limit <= 0:
                log.warning("envoy did not take some clusters; routes are sent without them")
                stream.give_up_warming(patience.waited_for)
                continue
            if stream.has_leftovers:
                rest = max(leftovers_go - loop.time(), 0.0)
                limit = rest if limit is None else min(limit, rest)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), limit)
            if loop.time() >= leftovers_go:
                stream.drop_leftovers()

    async def _read(self, stream: AdsStream, context: Any, wake: asyncio.Event) -> None:
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                self._asked.pop((stream, request.response_nonce), None)
                settled = stream.receive(request)
                if settled is not None:
                    self._settle(settled)
                wake.set()
        except Exception:
            log.exception("a request of envoy could not be read; its stream ends")
        finally:
            wake.set()

    def _settle(self, settled: Settled) -> None:
        if settled.refused:
            self._metrics.xds_refused(settled.type)
            names = sorted(settled.versions)
            log.error(
                "envoy refused %s %s: %s",
                settled.type.name.lower(),
                names[0] if settled.culprit else f"({len(names)}, one of them)",
                settled.refused,
            )
        self._on_settled(settled)
