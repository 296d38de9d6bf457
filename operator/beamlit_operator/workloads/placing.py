"""A pod put where its policy lets it run, without disturbing what runs already.

A Deployment's pods are replaced whenever its template changes, so a template that only *allows
more* must not be written while pods run. What a revision's template was made for is kept as
annotations on its Deployment. While it has replicas, the template stays for that set as long as

1. everything it allows is still allowed (a policy was loosened, or nothing changed), and
2. its placement is what that set gives: a template that somebody else changed is put right.

The same sets may give another affinity after the catalogue changed (a region more, a cloud's new
label for a GPU). While there are replicas, the affinity in the template stays as long as each of
its terms is within one of the new terms (`settled`): it lets in no node that may not be used.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy.algebra import Value, ValueSet, written
from beamlit_operator.policy.because import listed
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.effective import Aspect, EffectivePolicy
from beamlit_operator.policy.locations import PolicyType, algebra
from beamlit_operator.policy.placement import Placement, place

Json = dict[str, Any]

LOCATIONS_ANNOTATION = "beamlit.com/allowed-locations"
FLAVORS_ANNOTATION = "beamlit.com/allowed-flavors"
POLICY_ANNOTATION = "beamlit.com/policy"
ANYTHING = "anything"

_NAMES = 4
"""Policies that the words name."""


def placed(pod: Mapping[str, Any], placement: Placement, *, container: str) -> Json:
    """The pod spec with the placement's affinity, tolerations and devices. `pod` is not changed.

    A user's own node affinity stays, and both must hold.
    """
    result = dict(pod)
    if placement.affinity is not None:
        result["affinity"] = _both(pod.get("affinity") or {}, placement.affinity)
    tolerations = [*(pod.get("tolerations") or ())]
    tolerations += [each for each in placement.tolerations if each not in tolerations]
    if tolerations:
        result["tolerations"] = tolerations
    if placement.devices:
        result["containers"] = [
            _with_devices(each, placement.devices) if each.get("name") == container else each
            for each in pod["containers"]
        ]
    return result


def _with_devices(container: Mapping[str, Any], devices: Mapping[str, int]) -> Json:
    resources = dict(container.get("resources") or {})
    # Requests of a device are its limits; the user's own number counts.
    limits = {name: str(count) for name, count in devices.items()}
    resources["limits"] = {**limits, **(resources.get("limits") or {})}
    return {**container, "resources": resources}


def _both(own: Mapping[str, Any], ours: Mapping[str, Any]) -> Json:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    node = own.get("nodeAffinity") or {}
    theirs = (node.get(required) or {}).get("nodeSelectorTerms") or [{}]
    terms = [
        {
            **one,
            "matchExpressions": [*other["matchExpressions"], *(one.get("matchExpressions") or ())],
        }
        for one in theirs
        for other in ours["nodeAffinity"][required]["nodeSelectorTerms"]
    ]
    return {**own, "nodeAffinity": {**node, required: {"nodeSelectorTerms": terms}}}


def annotations_of(policy: EffectivePolicy) -> dict[str, str]:
    """What a template was made for, as annotations of its Deployment."""
    return {
        LOCATIONS_ANNOTATION: _text(policy.location.allowed),
        FLAVORS_ANNOTATION: _text(policy.flavor.allowed),
    }


def words(policy: EffectivePolicy) -> str | None:
    """The policy as a person says it, with the names of what it comes from; None for anything."""
    told = []
    for title, aspect in (("location", policy.location), ("flavor", policy.flavor)):
        if aspect.allowed is not None:
            names = [
                f"{row.name}, mandatory" if row.mandatory else row.name
                for row in aspect.policies
                if row.contribution
            ]
            origin = f" ({'; '.join(names[:_NAMES])})" if names else ""
            told.append(f"{title}: {listed(aspect.allowed)}{origin}")
    return " / ".join(told) or None


def template_annotations(
    policy: EffectivePolicy, *, pod: Mapping[str, Any], live: Mapping[str, Any] | None
) -> dict[str, str]:
    """The policy in words, for who reads the pod. Words alone never change a running template."""
    said = words(policy)
    if live is not None and has_replicas(live):
        template = live["spec"]["template"]
        found = template["spec"]
        if all((found.get(each) or None) == (pod.get(each) or None) for each in _PLACING):
            before = (template.get("metadata") or {}).get("annotations") or {}
            said = before.get(POLICY_ANNOTATION)
    return {} if said is None else {POLICY_ANNOTATION: said}


def _text(allowed: ValueSet | None) -> str:
    return ANYTHING if allowed is None else " ".join(written(allowed))


def policy_of(annotations: Mapping[str, str]) -> EffectivePolicy | None:
    """The sets that annotations tell; None if they are not all there and well formed."""
    sets = []
    for name in (LOCATIONS_ANNOTATION, FLAVORS_ANNOTATION):
        text = annotations.get(name, "")
        values = [Value(*each.partition(":")[::2]) for each in text.split()]
        if text != ANYTHING and not (values and all(value.name for value in values)):
            return None
        sets.append(Aspect(None if text == ANYTHING else frozenset(values), ()))
    return EffectivePolicy(location=sets[0], flavor=sets[1])


def allows_no_more(one: EffectivePolicy, other: EffectivePolicy, *, catalogue: Catalogue) -> bool:
    """Whether `other` allows everything that `one` allows."""
    return all(
        above is None
        or (below is not None and algebra(policy_type, catalogue).covers(above, below))
        for below, above, policy_type in (
            (one.location.allowed, other.location.allowed, PolicyType.LOCATION),
            (one.flavor.allowed, other.flavor.allowed, PolicyType.FLAVOR),
        )
    )


def policy_to_place(
    policy: EffectivePolicy,
    *,
    pod: Mapping[str, Any],
    live: Mapping[str, Any] | None,
    container: str,
    requested: Sequence[Flavor],
    catalogue: Catalogue,
) -> EffectivePolicy:
    """The sets to make the template for: those of the live Deployment where they may stay.

    Args:
        policy: what is allowed now.
        pod: the pod spec before placement.
        live: the revision's Deployment as it is in the cluster, if there is one.
        container: the name of the serving container.
        requested: the flavors the deployment asks for.
        catalogue: what continents and countries contain.
    """
    if live is None or not has_replicas(live):
        return policy
    before = policy_of(live["metadata"].get("annotations") or {})
    if before is None or not allows_no_more(before, policy, catalogue=catalogue):
        return policy
    kept = place(before, requested=requested, catalogue=catalogue)
    if kept.forbidden or kept.problem:
        return policy
    should = placed(pod, kept, container=container)
    found = live["spec"]["template"]["spec"]
    same = all((found.get(each) or None) == (should.get(each) or None) for each in _PLACING)
    return before if same else policy


def settled_on(
    policy: EffectivePolicy,
    *,
    pod: Mapping[str, Any],
    live: Mapping[str, Any] | None,
    container: str,
    choices: Sequence[tuple[Flavor, ...]],
    catalogue: Catalogue,
) -> tuple[EffectivePolicy, Json]:
    """The sets a template is made for, and the pod placed for them.

    Args:
        policy: what is allowed now.
        pod: the pod spec before placement.
        live: the revision's Deployment as it is in the cluster, if there is one.
        container: the name of the serving container.
        choices: the flavors to place it on. While it has replicas, those by which the template is
            what it is; else the first.
        catalogue: what continents and countries contain.
    """

    def made(flavors: Sequence[Flavor]) -> tuple[EffectivePolicy, Json]:
        sets = policy_to_place(
            policy,
            pod=pod,
            live=live,
            container=container,
            requested=flavors,
            catalogue=catalogue,
        )
        placement = place(sets, requested=flavors, catalogue=catalogue)
        return sets, settled(placed(pod, placement, container=container), live)

    best = made(choices[0])
    if live is not None and has_replicas(live) and not _is_there(best[1], live):
        for flavors in choices[1:]:
            other = made(flavors)
            if _is_there(other[1], live):
                return other
    return best


def _is_there(pod: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether a Deployment's pods are kept to the same nodes."""
    found = live["spec"]["template"]["spec"].get("affinity") or None
    return (pod.get("affinity") or None) == found


_PLACING: Iterable[str] = ("affinity", "tolerations")

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def settled(pod: Json, live: Mapping[str, Any] | None) -> Json:
    """The placed pod, with the affinity of the live Deployment where that is as strict."""
    if live is None or not has_replicas(live):
        return pod
    mine = pod.get("affinity") or {}
    found = live["spec"]["template"]["spec"].get("affinity") or {}
    strict = _terms(found)
    if found == mine or not strict or _without_terms(found) != _without_terms(mine):
        return pod
    if all(any(_implies(one, other) for other in _terms(mine)) for one in strict):
        return {**pod, "affinity": found}
    return pod


def _terms(affinity: Mapping[str, Any]) -> list[Json]:
    required = (affinity.get("nodeAffinity") or {}).get(_REQUIRED) or {}
    return list(required.get("nodeSelectorTerms") or ())


def _without_terms(affinity: Mapping[str, Any]) -> Json:
    node = {k: v for k, v in (affinity.get("nodeAffinity") or {}).items() if k != _REQUIRED}
    return {**affinity, "nodeAffinity": node}


def _implies(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether each node that meets the one term surely meets the other."""
    if one.get("matchFields") != other.get("matchFields"):
        return False
    given = one.get("matchExpressions") or ()
    return all(
        any(_surely(has, asked) for has in given) for asked in other.get("matchExpressions") or ()
    )


def _surely(has: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    if has == asked:
        return True
    if has["key"] != asked["key"]:
        return False
    values, wanted = set(has.get("values") or ()), set(asked.get("values") or ())
    match has["operator"], asked["operator"]:
        case "In", "In":
            return values <= wanted
        case "NotIn", "NotIn":
            return values >= wanted
        case "In", "NotIn":
            return not values & wanted
        case "In", "Exists":
            return True
        case "DoesNotExist", "NotIn":
            return True
        case _:
            return False


def has_replicas(deployment: Mapping[str, Any]) -> bool:
    """Whether a Deployment has or wants pods."""
    wanted = (deployment.get("spec") or {}).get("replicas")
    # The API's default is 1, so an absent number is not zero.
    return (1 if wanted is None else wanted) > 0 or bool(
        (deployment.get("status") or {}).get("replicas")
    )
