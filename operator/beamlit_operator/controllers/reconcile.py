"""One reconcile: gather what a decision needs, decide, carry out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from beamlit_operator.api import Model, ModelDeployment, Reason, conditions
from beamlit_operator.controllers import environment, model, modeldeployment, policy
from beamlit_operator.controllers.ahead import Ahead
from beamlit_operator.controllers.caches import Claims
from beamlit_operator.controllers.children import Children, Nodes
from beamlit_operator.controllers.credentials import Integrations
from beamlit_operator.controllers.demand import Demand
from beamlit_operator.controllers.diagnosis import claim_missing, fetch_failed
from beamlit_operator.controllers.ending import EndingError
from beamlit_operator.controllers.indexes import Indexes
from beamlit_operator.controllers.keys import Key, Kind
from beamlit_operator.controllers.objects import Held
from beamlit_operator.controllers.opening import opening_of
from beamlit_operator.controllers.options import Options
from beamlit_operator.controllers.originbook import (
    Entry,
    Found,
    OriginBook,
    Question,
    remembered,
)
from beamlit_operator.controllers.originfiles import files_of
from beamlit_operator.controllers.plan import Announcement, Plan
from beamlit_operator.controllers.prefetching import MAX_MESSAGE, NOTHING, Prefetching
from beamlit_operator.controllers.queue import RetryError
from beamlit_operator.controllers.snapshot import Rival, Snapshot
from beamlit_operator.controllers.starts import Starts
from beamlit_operator.controllers.stores import reference, secret_for
from beamlit_operator.controllers.verdict import State, Verdict, changed, conditions_of
from beamlit_operator.controllers.whereabouts import NODE_GRACE, Whereabouts
from beamlit_operator.controllers.writer import RefusedError, Writer
from beamlit_operator.kube import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    SERVICES,
    Json,
    ObjectKey,
    Resource,
)
from beamlit_operator.origins import OriginError
from beamlit_operator.origins.pickles import needed_pickles
from beamlit_operator.policy import Catalogue, built_in
from beamlit_operator.rollout import Evidence
from beamlit_operator.workloads.native import Settings
from beamlit_operator.workloads.presets import Preset

log = logging.getLogger(__name__)

Gather = Callable[[ObjectKey, ModelDeployment], Evidence]
"""What is known of the step of a deployment's rollout."""

OnDecided = Callable[[ObjectKey, Json | None, Plan], None]
"""Takes a deployment's key, how it was (None: it is gone) and its plan."""

ENDING_AGAIN = 300.0
"""Seconds after which an object is looked at again whose namespace is being deleted."""

STATUS_LAG = 0.5
"""Seconds by which the status may lag behind an eviction while others wait for theirs."""


class Reconciler:
    """Brings one object at a time to what its spec says."""

    def __init__(
        self,
        *,
        options: Options,
        indexes: Indexes,
        children: dict[Resource, Children],
        nodes: Nodes,
        integrations: Integrations,
        book: OriginBook,
        writer: Writer,
        clock: Callable[[], datetime],
        starts: Starts,
        monotonic: Callable[[], float] = time.monotonic,
        hurried: Callable[[], bool] = lambda: False,
        on_decided: OnDecided = lambda *_: None,
        refused: Callable[[ObjectKey], str | None] = lambda _: "",
        demand: Demand | None = None,
        evidence: Gather = lambda _place, _deployment: Evidence(),
        claims: Claims | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        """``hurried`` says whether other deployments with pods wait to be looked at; ``on_decided``
        hears of every deployment that was brought to its plan, or is gone; ``refused`` says what a
        gateway does not take of a deployment; ``demand`` has what the autoscaler asks for while a
        rollout shares the load, and ``evidence`` gathers what is known of its step; ``claims`` are
        those of caches, into which ``ahead`` has Models fetched."""
        self._claims = claims
        self._ahead = ahead
        self._demand = demand or Demand(lambda _: None)
        self._evidence = evidence
        self._refused = refused
        self._on_decided = on_decided
        self._options = options
        self._indexes = indexes
        self._children = children
        self._nodes = nodes
        self._integrations = integrations
        self._book = book
        self._writer = writer
        self._starts = starts
        self._clock = clock
        self._monotonic = monotonic
        self._hurried = hurried
        self._whereabouts = Whereabouts(nodes.labels_of, clock=monotonic)
        self._settings = Settings(
            image=options.image,
            gateway_service=options.gateway_service,
            engine=options.engine,
            catalogue=built_in(),
            outgoing=options.outgoing,
        )
        # When each revision was first seen without traffic, by its ModelDeployment.
        self._unused_since: dict[ObjectKey, dict[str, float]] = {}

    @property
    def settings(self) -> Settings:
        """What workloads are made with."""
        return self._settings

    def use(self, catalogue: Catalogue) -> None:
        """From now on decides by this catalogue."""
        self._settings = replace(self._settings, catalogue=catalogue)

    def use_presets(self, presets: Mapping[str, Preset]) -> None:
        """From now on runs models by these presets."""
        self._settings = replace(self._settings, presets=presets)

    def exists(self, key: Key) -> bool:
        """Whether the object is there."""
        return self._find(key) is not None

    async def reconcile(self, key: Key) -> float | None:
        """Reconciles one object; returns after how many seconds to come back, if at all.

        Raises:
            RetryError: it could not be done now.
        """
        found = self._find(key)
        if found is None:
            self._book.forget(key)
            self._starts.forget(key)
            if key.kind is Kind.MODEL and self._ahead is not None:
                self._ahead.forget(key)
            if key.kind is Kind.MODEL_DEPLOYMENT:
                self._unused_since.pop(ObjectKey(key.workspace, key.name), None)
                self._demand.forget(ObjectKey(key.workspace, key.name))
                self._on_decided(ObjectKey(key.workspace, key.name), None, Plan())
                await self._writer.end_orphans(key)
            return None
        asked = self._demand.of(ObjectKey(key.workspace, key.name))
        plan = decided = self._decide(key)
        if self._hurried() and any(each.resource is PODS for each in plan.delete):
            # Others may have pods to remove too. What is told about this can wait: the end of its
            # pods brings it back, and at the latest the clock does.
            plan = replace(plan, status=None, events=(), requeue_after=STATUS_LAG)
        try:
            await self._writer.carry_out(key, found.raw, plan)
        except EndingError as ending:
            # Its deletion is an event, so there is nothing to come back for; should the namespace
            # stay for long, this looks again now and then.
            log.info("%s: left alone: %s", key, ending)
            return ENDING_AGAIN
        except RefusedError as refusal:
            await self._tell_refusal(key, refusal)
            raise RetryError(str(refusal)) from refusal
        self._start_draining(key)
        if key.kind is Kind.MODEL_DEPLOYMENT and plan.status is not None:
            self._demand.taken(ObjectKey(key.workspace, key.name), asked)
        if key.kind is Kind.MODEL_DEPLOYMENT:
            self._on_decided(ObjectKey(key.workspace, key.name), found.raw, decided)
        if key.kind is Kind.MODEL_DEPLOYMENT and self._waits_for_nodes(key):
            return min(NODE_GRACE, plan.requeue_after or NODE_GRACE)
        return plan.requeue_after

    def _waits_for_nodes(self, key: Key) -> bool:
        """Whether a pod is on a node that the watch of nodes has not told of yet."""
        pods = self._children[PODS].of(ObjectKey(key.workspace, key.name))
        nodes = {(pod.get("spec") or {}).get("nodeName") or "" for pod in pods} - {""}
        return bool(nodes - self._whereabouts.of(nodes).keys())

    def _start_draining(self, key: Key) -> None:
        """What was just written may have moved the traffic: the old revision's time runs now."""
        held = self._indexes.deployments.get(ObjectKey(key.workspace, key.name))
        if key.kind is Kind.MODEL_DEPLOYMENT and held is not None and held.parsed is not None:
            revisions = held.parsed.status.revisions
            self._unused_for(held.parsed, {each.name for each in revisions})

    def _find(self, key: Key) -> Held | None:  # type: ignore[type-arg]
        place = ObjectKey(key.workspace, key.name)
        if key.kind is Kind.MODEL:
            return self._indexes.models.get(place)
        if key.kind is Kind.MODEL_DEPLOYMENT:
            return self._indexes.deployments.get(place)
        if key.kind is Kind.ENVIRONMENT:
            return self._indexes.environments.get(place)
        return self._indexes.policies.get(place)

    def _decide(self, key: Key) -> Plan:
        place = ObjectKey(key.workspace, key.name)
        now = self._clock()
        if key.kind is Kind.MODEL:
            return self._decide_model(key, self._indexes.models[place], now)
        if key.kind is Kind.MODEL_DEPLOYMENT:
            held = self._indexes.deployments[place]
            if held.parsed is None:
                return modeldeployment.unreadable(held, now)
            return modeldeployment.decide(self._snapshot(key, held, held.parsed), now)
        if key.kind is Kind.ENVIRONMENT:
            held_environment = self._indexes.environments[place]
            attached = held_environment.parsed.spec.policies if held_environment.parsed else ()
            return environment.decide(
                held_environment,
                policies={
                    each.name
                    for each in attached
                    if ObjectKey(key.workspace, each.name) in self._indexes.policies
                },
                deployments=self._indexes.count_in(place),
                now=now,
            )
        return policy.decide(
            self._indexes.policies[place], catalogue=self._settings.catalogue, now=now
        )

    def _decide_model(self, key: Key, held: Held[Model], now: datetime) -> Plan:
        question = self._question(held, version=None)
        entry = self._entry(key, question, held)
        return model.decide(
            held,
            question=question,
            entry=entry,
            deployments=self._indexes.deployments_of(held.key),
            now=now,
            prefetching=self._prefetching(key, held, question, entry),
        )

    def _prefetching(
        self,
        key: Key,
        held: Held[Model],
        question: Question | OriginError | None,
        entry: Entry | None,
    ) -> Prefetching:
        if self._ahead is None or held.parsed is None:
            return NOTHING
        if self._ahead.has_failed(held):
            self._book.doubt(key)
        spec = held.parsed.spec
        found = entry.answer if entry is not None else None
        files = None
        if (
            isinstance(question, Question)
            and isinstance(found, Found)
            and (spec.allow_pickle or not needed_pickles(found.paths, unpack=spec.unpack))
        ):
            files = files_of(question, found, model=spec)
        return self._ahead.look(key, held, files, self._settings)

    def _entry(
        self, key: Key, question: Question | OriginError | None, of: Held[Model] | None
    ) -> Entry | None:
        """What the book says to a question; None if there is nothing to ask."""
        if not isinstance(question, Question):
            self._book.forget(key)
            return None
        known = remembered(of.parsed) if of is not None and of.parsed is not None else None
        return self._book.ask(question, key, known=known)

    def _question(self, held: Held[Model], *, version: str | None) -> Question | OriginError | None:
        origin = held.parsed.spec.origin if held.parsed is not None else None
        if origin is None:
            return None
        workspace = held.key.namespace
        try:
            ref = reference(origin, revision=version, hub=self._options.hub_endpoint)
            opening = opening_of(
                origin,
                workspace=workspace,
                model=held.key.name,
                allow_node=self._options.allow_node_credentials,
                cache_claim=self._options.cache_claim,
            )
        except OriginError as error:
            return error
        if ref is None:
            return None
        opens = secret_for(
            origin,
            workspace=workspace,
            integrations=self._integrations,
            hub=self._options.hub_endpoint,
        )
        return Question(workspace, ref, opens.secret, opening, opens.withheld)

    def _snapshot(
        self, key: Key, held: Held[ModelDeployment], deployment: ModelDeployment
    ) -> Snapshot:
        workspace = key.workspace
        spec = deployment.spec
        held_model = self._indexes.models.get(ObjectKey(workspace, spec.model))
        question = None
        if held_model is not None and not held.deleting and spec.enabled:
            question = self._question(held_model, version=spec.version)
        place = ObjectKey(workspace, key.name)
        pods = tuple(self._children[PODS].of(place))
        if fetch_failed(pods) or claim_missing(pods):
            self._book.doubt(key)
        entry = self._entry(key, question, held_model)
        held_environment = self._indexes.environments.get(ObjectKey(workspace, spec.environment))
        nodes = {(pod.get("spec") or {}).get("nodeName") or "" for pod in pods}
        environment_ = held_environment.parsed if held_environment is not None else None
        names = {each.name for each in spec.policies} | {
            each.name for each in (environment_.spec.policies if environment_ else ())
        }
        names |= {each.replaces for each in spec.policies if each.replaces}
        workloads = self._children[DEPLOYMENTS].of(place)
        progress, tell_again = self._starts.look(key, pods)
        return Snapshot(
            deployment=deployment,
            settings=self._settings,
            gateway_url=self._options.gateway_url,
            rivals=tuple(
                Rival(
                    each.metadata.name,
                    each.metadata.uid,
                    each.metadata.creation_timestamp,
                    each.deleting,
                    each.parsed is not None and bool(each.parsed.status.revisions),
                )
                for each in self._indexes.rivals(held)
            ),
            model=held_model.parsed if held_model is not None else None,
            environment=environment_,
            policies={
                name: found.parsed
                for name in names
                if (found := self._indexes.policies.get(ObjectKey(workspace, name))) is not None
                and found.parsed is not None
            },
            question=question,
            entry=entry,
            children=(
                *workloads,
                *self._children[SERVICES].of(place),
                *self._children[HORIZONTAL_POD_AUTOSCALERS].of(place),
            ),
            pods=pods,
            refused=self._refused(place),
            demand=self._demand.of(place),
            evidence=self._evidence(place, deployment),
            unused_for=self._unused_for(deployment, {w["metadata"]["name"] for w in workloads}),
            node_kinds=tuple(self._nodes.kinds()),
            node_labels=self._whereabouts.of(nodes - {""}),
            progress=progress,
            tell_again=tell_again,
            cache=self._claims.of(workspace) if self._claims is not None else None,
        )

    def _unused_for(self, deployment: ModelDeployment, existing: set[str]) -> dict[str, float]:
        """For how long each revision that exists has been without traffic, as far as was seen."""
        place = ObjectKey(deployment.metadata.namespace, deployment.metadata.name)
        traffic = {r.name: r.traffic for r in deployment.status.revisions}
        known, now = self._unused_since.get(place, {}), self._monotonic()
        since = {name: known.get(name, now) for name in existing if not traffic.get(name)}
        if since:
            self._unused_since[place] = since
        else:
            self._unused_since.pop(place, None)
        return {name: now - at for name, at in since.items()}

    async def _tell_refusal(self, key: Key, refusal: RefusedError) -> None:
        """The status of a deployment whose child was refused: as it is, but not Ready."""
        if key.kind is Kind.MODEL:
            await self._tell_prefetch_refusal(key, refusal)
        held = self._indexes.deployments.get(ObjectKey(key.workspace, key.name))
        if key.kind is not Kind.MODEL_DEPLOYMENT or held is None or held.parsed is None:
            return
        old = held.parsed.status.conditions
        overridden = conditions.find(old, conditions.POLICY_OVERRIDDEN)
        verdict = Verdict(State.STALLED, Reason.APPLY_FAILED, str(refusal))
        generation = held.metadata.generation
        kept = [(overridden.type, overridden.reason, overridden.message)] if overridden else []
        refused = conditions.find(old, conditions.PROGRAMMED)
        lacking = [(refused.type, refused.reason, refused.message)] if refused else []
        status = {
            **(held.raw.get("status") or {}),
            "observedGeneration": generation,
            "phase": "Failed",
            "conditions": conditions_of(
                verdict,
                old=old,
                generation=generation,
                now=self._clock(),
                more=kept,
                lacking=lacking,
            ),
        }
        events: tuple[Announcement, ...] = ()
        if changed(verdict, old):
            events = (Announcement("Warning", verdict.reason, verdict.message),)
        await self._writer.carry_out(key, held.raw, Plan(status=status, events=events))

    async def _tell_prefetch_refusal(self, key: Key, refusal: RefusedError) -> None:
        """The status of a Model whose prefetching pod was refused."""
        held = self._indexes.models.get(ObjectKey(key.workspace, key.name))
        if held is None or self._ahead is None:
            return
        self._ahead.refused(key)
        plan = replace(self._decide_model(key, held, self._clock()), create=(), delete=())
        before = (held.raw.get("status") or {}).get("prefetch") or {}
        told = {**((plan.status or {}).get("prefetch") or {}), "phase": "Failed"}
        told["message"] = str(refusal)[:MAX_MESSAGE]
        events: tuple[Announcement, ...] = ()
        if before.get("phase") != "Failed":
            events = (Announcement("Warning", Reason.PREFETCH_FAILED, told["message"]),)
        if plan.status is not None:
            plan = replace(plan, status={**plan.status, "prefetch": told}, events=events)
            await self._writer.carry_out(key, held.raw, plan)
