"""Which writes an admission webhook or policy is about, and what it is told of them."""

from __future__ import annotations

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.selectors import matches_selector
from beamlit_operator.devcluster.apiserver.store import Key, Store
from beamlit_operator.kube import Json


def matches_constraints(constraints: Json, review: Review, store: Store) -> bool:
    """Whether `matchConstraints` (or `matchResources`) are about the write.

    Of a binding, no rules at all match everything.
    """
    rules = constraints.get("resourceRules")
    if rules and not any(rule_matches(rule, review) for rule in rules):
        return False
    if any(rule_matches(rule, review) for rule in constraints.get("excludeResourceRules") or ()):
        return False
    return selected(constraints, review, store)


def selected(spec: Json, review: Review, store: Store) -> bool:
    """Whether `namespaceSelector` and `objectSelector` choose the write."""
    chosen = spec.get("namespaceSelector")
    if chosen:
        labels = _namespace_labels(review, store)
        if labels is not None and not matches_selector(chosen, labels):
            return False
    chosen = spec.get("objectSelector")
    if not chosen:
        return True
    items = [item for item in (review.new, review.old) if item is not None]
    return any(matches_selector(chosen, item["metadata"].get("labels") or {}) for item in items)


def _namespace_labels(review: Review, store: Store) -> dict[str, str] | None:
    """The labels of the namespace (for a namespace, its own); None when cluster-scoped."""
    if review.served.resource == "namespaces":
        item = review.new or review.old or {}
        return dict(item.get("metadata", {}).get("labels") or {})
    if not review.key.namespace:
        return None
    home = store.collection("namespaces").objects.get(Key("", review.key.namespace))
    return dict(home.obj["metadata"].get("labels") or {}) if home is not None else {}


def rule_matches(rule: Json, review: Review) -> bool:
    """Whether one rule names the resource, the operation and (if it does) the object."""
    served = review.served

    def has(name: str, value: str) -> bool:
        values = rule.get(name) or ()
        return "*" in values or value in values

    wanted = f"{served.plural}/{review.subresource}" if review.subresource else served.plural
    resources = rule.get("resources") or ()
    named = any(
        r in (wanted, "*/*")
        or (r == "*" and not review.subresource)
        or (r == f"{served.plural}/*")
        or (r == f"*/{review.subresource}" and bool(review.subresource))
        for r in resources
    )
    scope = rule.get("scope", "*")
    fits = scope == "*" or (scope == "Namespaced") is served.namespaced
    names = rule.get("resourceNames")
    return (
        named
        and fits
        and (not names or review.key.name in names)
        and has("operations", review.verb)
        and has("apiGroups", served.group)
        and has("apiVersions", served.version)
    )


def admission_request(review: Review, uid: str) -> Json:
    """The AdmissionReview that describes the write."""
    served = review.served
    kind = {"group": served.group, "version": served.version, "kind": served.kind}
    resource = {"group": served.group, "version": served.version, "resource": served.plural}
    request: Json = {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": review.key.name,
        "operation": review.verb,
        "userInfo": review.options.user.info(),
        "object": review.new,
        "oldObject": review.old,
        "dryRun": review.options.dry_run,
    }
    if review.key.namespace:
        request["namespace"] = review.key.namespace
    if review.subresource:
        request["subResource"] = request["requestSubResource"] = review.subresource
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
