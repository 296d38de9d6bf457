"""Label selectors: does an object match one. Semantics of ``metav1.LabelSelector``."""

from __future__ import annotations

from collections.abc import Mapping

from beamlit_operator.kube import Json


def matches(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` satisfy a LabelSelector. A missing selector matches nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(k) == v for k, v in wanted.items()) and all(
        requirement_holds(item, labels) for item in selector.get("matchExpressions") or ()
    )


def requirement_holds(requirement: Json, values: Mapping[str, str]) -> bool:
    """Whether one requirement of a label or node selector holds.

    | operator     | holds when                                              |
    |--------------|---------------------------------------------------------|
    | In           | the key is there with one of the values                 |
    | NotIn        | the key is absent, or has none of the values            |
    | Exists       | the key is there                                        |
    | DoesNotExist | the key is absent                                       |
    | Gt, Lt       | the key is there, both are integers, and it is greater (less) |
    """
    key, operator = requirement["key"], requirement["operator"]
    listed = requirement.get("values") or []
    found = values.get(key)
    match operator:
        case "In":
            return found is not None and found in listed
        case "NotIn":
            return found is None or found not in listed
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt":
            if found is None or len(listed) != 1 or not (_is_int(found) and _is_int(listed[0])):
                return False
            left, right = int(found), int(listed[0])
            return left > right if operator == "Gt" else left < right
        case _:
            return False


def node_matches(term: Json, node: Json) -> bool:
    """Whether every expression and field of a node selector's term holds. An empty term matches no
    node."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = node["metadata"].get("labels") or {}
    values = {"metadata.name": node["metadata"]["name"]}
    return all(requirement_holds(item, labels) for item in expressions) and all(
        requirement_holds(item, values) for item in fields
    )


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdigit()
