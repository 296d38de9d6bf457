"""May this ModelDeployment be written? The questions, in the order a person would ask them.

| question                                               | bad answer                            |
|--------------------------------------------------------|---------------------------------------|
| can pods be made of its name and template?             | refused                               |
| is the endpoint another deployment's already?          | refused on CREATE, naming the older   |
| does it remove or replace a mandatory policy?          | refused, naming both and the way out  |
| does a policy replace one of another type?             | refused                               |
| does it ask for flavors that policies do not allow?    | refused, naming those policies        |
| does its pod ask for a device that they do not allow?  | refused                               |
| does its template borrow rights on the node?           | refused                               |
| does an analysis ask a Prometheus that nobody named?   | refused                               |
| does an annotation give an order that makes no sense?  | refused (see `orders`)                |
| do its Model, Environment and policies exist?          | warned: GitOps applies in any order   |
| is a policy overridden or narrowed, or of no effect?   | warned                                |
| does it set what this version does not act on?         | warned                                |
| is its runtime's type known in this cluster?           | warned: a ConfigMap may add it        |
| is there a node that it fits on?                       | warned: one may be added              |
| has it the memory for the model, as far as is known?   | warned (see `memory`)                 |

Whoever edits something else is not refused for what was so before the edit: it is told as a warning
(see `decision.decided`). What is refused here is what stands in `Ready=False` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from beamlit_operator.api import Environment, Model, ModelDeployment
from beamlit_operator.controllers.admission import memory, orders
from beamlit_operator.controllers.admission.decision import Decision, Finding, decided, some
from beamlit_operator.controllers.admission.picture import Picture, Policies
from beamlit_operator.controllers.keys import Key, Kind, Workspace
from beamlit_operator.controllers.objects import Held
from beamlit_operator.policy import Effect, EffectivePolicy, Trace, effective_policy, written
from beamlit_operator.policy import because as sentences
from beamlit_operator.policy.placement import place, why_no_node
from beamlit_operator.workloads import names
from beamlit_operator.workloads.devices import DeviceNotAllowedError, flavors_to_place
from beamlit_operator.workloads.merge import merged
from beamlit_operator.workloads.pods import SERVING
from beamlit_operator.workloads.presets import presets
from beamlit_operator.workloads.runtimes import RuntimeProblem, merged_runtime
from beamlit_operator.workloads.template import template_problem
from beamlit_operator.workloads.unsupported import unsupported

_TEMPLATE = "spec.podTemplate"


@dataclass(frozen=True, slots=True)
class Case:
    """A deployment as it will be, and what it refers to."""

    deployment: ModelDeployment
    policy: EffectivePolicy
    model: Model | None
    environment: Environment | None
    policies: Policies
    picture: Picture

    @property
    def workspace(self) -> str:
        """The namespace."""
        return self.deployment.metadata.namespace

    def key(self, kind: Kind, name: str) -> Key:
        """Names an object of the same workspace."""
        return Key(kind, Workspace(self.workspace), name)

    @property
    def governed_by(self) -> frozenset[Key]:
        """What its effective policy was computed from."""
        attached = self.environment.spec.policies if self.environment is not None else ()
        named = {each.name for each in attached}
        named |= {each.name for each in self.deployment.spec.policies}
        return frozenset(
            {self.key(Kind.ENVIRONMENT, self.deployment.spec.environment)}
            | {self.key(Kind.POLICY, name) for name in named}
        )


def review(
    new: Held[ModelDeployment], old: Held[ModelDeployment] | None, picture: Picture
) -> Decision:
    """The decision about a deployment that is created (``old`` is None) or changed."""
    if new.parsed is None:
        return Decision(warnings=(f"the spec cannot be read: {new.problem}",))
    case = _case(new.parsed, picture)
    refusals = [*orders.refused(new.parsed, old.parsed if old is not None else None)]
    if old is None or old.parsed is None or old.parsed.spec != new.parsed.spec:
        refusals += refused(case)
    if old is None:
        refusals = [*duplicate(case), *refusals]
    before = _case(old.parsed, picture) if old is not None and old.parsed is not None else None
    return decided(
        f"ModelDeployment {new.metadata.name}",
        refusals=refusals,
        tolerated=refused(before) if before is not None and refusals else (),
        warnings=warned(case),
    )


def _case(deployment: ModelDeployment, picture: Picture) -> Case:
    workspace, spec = deployment.metadata.namespace, deployment.spec
    environment = picture.environment(workspace, spec.environment)
    policies = picture.policies(workspace)
    return Case(
        deployment=deployment,
        policy=effective_policy(
            deployment, environment, policies=policies, catalogue=picture.settings.catalogue
        ),
        model=picture.model(workspace, spec.model),
        environment=environment,
        policies=policies,
        picture=picture,
    )


def refused(case: Case) -> Iterator[Finding]:
    """Everything that must not be stored, but for a second owner of the endpoint."""
    yield from unusable(case)
    yield from mandatory_kept(case)
    yield from replaces_another_type(case)
    yield from flavors(case)
    yield from devices(case)
    yield from node_rights(case)
    yield from unknown_prometheus(case)


def warned(case: Case) -> Iterator[Finding]:
    """Everything its author should know."""
    yield from missing(case)
    yield from collisions(case)
    yield from without_effect(case)
    yield from unknown_runtime(case)
    yield from no_node(case)
    yield from too_small(case)


def unusable(case: Case) -> Iterator[Finding]:
    """Can pods and Services be made of its name and template at all?"""
    if (problem := names.name_problem(case.deployment.metadata.name)) is not None:
        yield Finding(problem)
    if (problem := template_problem(case.deployment.spec.pod_template)) is not None:
        yield Finding(problem)


def duplicate(case: Case) -> Iterator[Finding]:
    """Does another deployment own the endpoint? One being deleted does not count."""
    metadata, spec = case.deployment.metadata, case.deployment.spec
    rivals = [
        each
        for each in case.picture.deployments_of(case.workspace, spec.model)
        if each.metadata.name != metadata.name
        and each.parsed is not None
        and each.parsed.spec.environment == spec.environment
    ]
    if rivals:
        older = min(rivals, key=_created).metadata.name
        yield Finding(
            f"ModelDeployment {older} already serves model {spec.model} in environment "
            f"{spec.environment}, and an endpoint has one: change {older}, or name another model "
            f"or environment",
            frozenset({case.key(Kind.MODEL_DEPLOYMENT, older)}),
        )


def _created(rival: Held[ModelDeployment]) -> tuple[float, str]:
    created = rival.metadata.creation_timestamp
    return (created.timestamp() if created else float("inf"), rival.metadata.name)


def mandatory_kept(case: Case) -> Iterator[Finding]:
    """Does it remove or replace what its environment makes mandatory?"""
    for attempt in case.policy.ignored:
        yield Finding(attempt.message, case.governed_by)


def replaces_another_type(case: Case) -> Iterator[Finding]:
    """Does a policy of the one type stand in for one of the other?"""
    environment = case.environment
    if environment is None:
        return
    optional = {each.name for each in environment.spec.policies if not each.mandatory}
    for each in case.deployment.spec.policies:
        new, old = case.policies.get(each.name), case.policies.get(each.replaces or "")
        if each.replaces not in optional or new is None or old is None:
            continue
        if new.spec.type != old.spec.type:
            types = (new.spec.type, old.spec.type)
            yield Finding(
                sentences.replaces_another_type(each.name, each.replaces, types=types),
                case.governed_by,
            )


def flavors(case: Case) -> Iterator[Finding]:
    """Does it ask for hardware that its policies do not allow?"""
    if not case.policy.resolved:
        return
    placement = place(
        case.policy,
        requested=case.deployment.spec.flavors,
        catalogue=case.picture.settings.catalogue,
    )
    if placement.forbidden:
        asked = some(written(placement.forbidden))
        allowed = " ".join(written(case.policy.flavor.allowed or ()))
        yield Finding(
            f"spec.flavors asks for {asked}, which is not allowed by "
            f"{_holders(case.policy, case)}: allowed are {allowed}; ask for one of those, or leave "
            f"spec.flavors out",
            case.governed_by,
        )
    elif placement.problem is not None:
        yield Finding(placement.problem)


def devices(case: Case) -> Iterator[Finding]:
    """Does its pod ask for a GPU in its resources that its policies do not allow?"""
    spec = case.deployment.spec
    if not case.policy.resolved or template_problem(spec.pod_template) is not None:
        return
    try:
        runtime = merged_runtime(case.model.spec.runtime if case.model else None, spec.runtime)
    except RuntimeProblem as problem:
        yield Finding(str(problem))
        return
    serving = {"name": SERVING, "resources": dict(runtime.resources or {})}
    template = (spec.pod_template or {}).get("spec") or {}
    try:
        flavors_to_place(
            merged({"containers": [serving], "initContainers": []}, template),
            requested=spec.flavors,
            allowed=case.policy.flavor.allowed,
            catalogue=case.picture.settings.catalogue,
        )
    except DeviceNotAllowedError as problem:
        yield Finding(f"{problem} (held by {_holders(case.policy, case)})", case.governed_by)


def node_rights(case: Case) -> Iterator[Finding]:
    """Does its template bypass the scheduler, or borrow rights on the node?"""
    for each in unsupported(case.deployment, engine=case.picture.settings.engine):
        if each.field.startswith(_TEMPLATE):
            yield Finding(each.message)


def unknown_prometheus(case: Case) -> Iterator[Finding]:
    """Does an analysis ask Prometheus, and the operator knows none?"""
    rollout = case.deployment.spec.rollout
    if rollout is None or case.picture.prometheus:
        return
    places = {"spec.rollout.analysis": rollout.analysis}
    for number, step in enumerate(rollout.steps):
        places[f"spec.rollout.steps[{number}].analysis"] = step.analysis
    for place_, analysis in places.items():
        if analysis is not None and analysis.prometheus is not None:
            yield Finding(
                f"{place_}.prometheus: the operator knows no Prometheus; have its option "
                f"--prometheus-url set, or use maxErrorPercent and maxLatencyPercent"
            )


def missing(case: Case) -> Iterator[Finding]:
    """Does everything it refers to exist?"""
    spec = case.deployment.spec
    if case.model is None:
        yield Finding(
            f"Model {spec.model} does not exist yet: nothing is placed until it does",
            frozenset({case.key(Kind.MODEL, spec.model)}),
        )
    for each in case.policy.unresolved:
        kind = Kind.ENVIRONMENT if each.kind == "Environment" else Kind.POLICY
        yield Finding(each.message, frozenset({case.key(kind, each.name)}))


def collisions(case: Case) -> Iterator[Finding]:
    """Is a policy overridden or narrowed, or does it stand where it has no effect?"""
    for row, bound in losing(case.policy):
        if row.level == "deployment":
            yield Finding(f"policy {row.name} is {row.effect} by {bound}: {row.because}")
    refused_notes = {each.message for each in replaces_another_type(case)}
    for note in case.policy.notes:
        if note not in refused_notes:
            yield Finding(note)
    for each in case.deployment.spec.policies:
        if each.ref_type == "remotePolicy":
            yield Finding(
                f"spec.policies[{each.name}].refType remotePolicy has no effect: the Policy is "
                f"read from namespace {case.workspace}"
            )


def losing(policy: EffectivePolicy) -> Iterator[tuple[Trace, str]]:
    """The policies that are overridden or narrowed, each with the names of those that do it."""
    for aspect in (policy.location, policy.flavor):
        for row in aspect.policies:
            if row.effect not in (Effect.OVERRIDDEN, Effect.NARROWED):
                continue
            above = ("M", "O") if row.group == "D" else ("M",)
            bound = [
                each.name
                for each in aspect.policies
                if each.group in above and each.contribution and each is not row
            ]
            yield row, some(bound)


def without_effect(case: Case) -> Iterator[Finding]:
    """Does it set what this version does not act on?"""
    for each in unsupported(case.deployment, engine=case.picture.settings.engine):
        if not each.field.startswith(_TEMPLATE):
            yield Finding(f"{each.message}; until then nothing is placed")


def unknown_runtime(case: Case) -> Iterator[Finding]:
    """Is its runtime a preset of this cluster? A ConfigMap with it may follow."""
    own = case.deployment.spec.runtime
    of_model = case.model.spec.runtime if case.model is not None else None
    try:
        runtime = merged_runtime(of_model, own)
    except RuntimeProblem:
        return  # said by `devices`
    table = case.picture.settings.presets or presets()
    if runtime.type is not None and runtime.type not in table:
        where = f"Model {case.deployment.spec.model}: " if own is None or own.type is None else ""
        yield Finding(
            f"{where}spec.runtime.type {runtime.type!r} is not known here: nothing is placed until "
            f"a ConfigMap adds it; known are {', '.join(sorted(table))}"
        )


def no_node(case: Case) -> Iterator[Finding]:
    """Is there a node now that it fits on?"""
    if not (case.policy.resolved and case.deployment.spec.enabled):
        return
    text = unplaceable(case.policy, case.deployment, case.picture, case.picture.node_kinds())
    if text is not None:
        yield Finding(f"no node fits now: {text}")


def too_small(case: Case) -> Iterator[Finding]:
    """Does it ask for less memory than the model needs, by what the Model's status tells of it?"""
    if case.model is not None and case.policy.resolved:
        yield from memory.found(
            case.model,
            case.deployment,
            allowed=case.policy.flavor.allowed,
            catalogue=case.picture.settings.catalogue,
        )


def unplaceable(
    policy: EffectivePolicy,
    deployment: ModelDeployment,
    picture: Picture,
    kinds: Iterable[Mapping[str, str]],
) -> str | None:
    """Why none of the nodes fits; None if one does, or if none is known."""
    nodes = [(labels, 1) for labels in kinds]
    if not nodes:
        return None
    return why_no_node(
        policy,
        nodes,
        requested=deployment.spec.flavors,
        catalogue=picture.settings.catalogue,
    )


def _holders(policy: EffectivePolicy, case: Case) -> str:
    """Whose the bound on flavors is: `policy t4-only (mandatory in environment production)`."""
    named = []
    for each in policy.flavor.policies:
        if each.contribution:
            where = f"environment {case.deployment.spec.environment}"
            where = f"mandatory in {where}" if each.mandatory else f"of {where}"
            named.append(f"{each.name} ({where if each.level == 'environment' else 'its own'})")
    return f"{'policy' if len(named) == 1 else 'policies'} {some(named)}"
