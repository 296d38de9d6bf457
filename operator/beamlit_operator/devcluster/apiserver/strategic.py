"""Strategic merge patch: a merge patch that knows which lists are maps, for built-in types."""

from __future__ import annotations

from typing import Any

from beamlit_operator.devcluster.apiserver.errors import bad_request
from beamlit_operator.devcluster.apiserver.fieldsets import ANY
from beamlit_operator.devcluster.apiserver.schemas import Node
from beamlit_operator.kube import ApiError, Json

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge(original: Json, patch: Json, node: Node) -> Json:
    """``original`` changed by ``patch``; neither is modified.

    Raises:
        ApiError: 400, the patch does not fit the schema or has an unknown directive.
    """
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        replaced: Json = _clean({k: v for k, v in patch.items() if k != _DIRECTIVE})
        return replaced
    if directive == "delete":
        return {}
    if directive is not None:
        # Kubernetes has no better answer than that it failed (ErrBadPatchType).
        raise ApiError(500, "", f"unknown patch type: {directive} in map: {patch!r}")
    result = dict(original)
    retained = patch.get(_RETAIN)
    if isinstance(retained, list):
        result = {name: value for name, value in result.items() if name in retained}
    for name, value in patch.items():
        if name.startswith(_DELETE_PRIMITIVES):
            field = name.removeprefix(_DELETE_PRIMITIVES)
            if isinstance(result.get(field), list):
                result[field] = [item for item in result[field] if item not in value]
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
            continue
        child = node.child(name) or ANY
        known = result.get(name)
        if isinstance(value, dict) and name not in result and _DIRECTIVE in value:
            # Kubernetes takes nothing of it (removeDirectives).
            continue
        if isinstance(value, dict):
            base = known if isinstance(known, dict) else {}
            result[name] = strategic_merge(base, value, child)
        elif isinstance(value, list) and child.merges:
            base_list = known if isinstance(known, list) else []
            result[name] = _merge_list(base_list, value, child, patch.get(_ORDER + name))
        else:
            result[name] = _clean(value)
    for name, order in patch.items():
        field = name.removeprefix(_ORDER)
        if name.startswith(_ORDER) and field not in patch and isinstance(result.get(field), list):
            items = result[field]
            result[field] = _arranged(items, order, items, node.child(field) or ANY)
    return result


def _merge_list(base: list[Any], patch: list[Any], node: Node, order: Any) -> list[Any]:
    if not node.merge_key:
        result = [*base, *(item for item in patch if item not in base)]
        return _arranged(result, order if isinstance(order, list) else patch, base, node)
    result = list(base)
    if any(isinstance(i, dict) and i.get(_DIRECTIVE) == "replace" for i in patch):
        return [_clean(item) for item in patch if _DIRECTIVE not in item]
    for item in patch:
        if not isinstance(item, dict) or node.merge_key not in item:
            raise bad_request(
                f"map: {item!r} does not contain declared merge key: {node.merge_key}"
            )
    # All that is deleted goes first, wherever it stands in the patch.
    deleted = [item[node.merge_key] for item in patch if item.get(_DIRECTIVE) == "delete"]
    result = [known for known in result if known.get(node.merge_key) not in deleted]
    for item in patch:
        key = item[node.merge_key]
        places = [i for i, known in enumerate(result) if known.get(node.merge_key) == key]
        if item.get(_DIRECTIVE) == "delete":
            continue
        if places:
            merged = strategic_merge(result[places[0]], item, node.items or ANY)
            result[places[0]] = merged
        else:
            result.append(_clean(item))
    wanted = order if isinstance(order, list) else patch
    return _arranged(result, wanted, base, node)


def _arranged(items: list[Any], wanted: list[Any], base: list[Any], node: Node) -> list[Any]:
    """``items`` as Kubernetes' ``normalizeElementOrder`` leaves them: those in ``wanted`` in its
    order, the others in that of ``base``, and of two from ``base`` the earlier one first."""

    def key_of(item: Any) -> Any:
        return item.get(node.merge_key) if node.merge_key and isinstance(item, dict) else item

    order, before = [key_of(item) for item in wanted], [key_of(item) for item in base]
    named = sorted((i for i in items if key_of(i) in order), key=lambda i: order.index(key_of(i)))
    result: list[Any] = []
    for item in (item for item in items if key_of(item) not in order):
        # An item that the patch leaves alone waits for all that do not stand behind it.
        while named and not (
            key_of(named[0]) in before
            and before.index(key_of(item)) < before.index(key_of(named[0]))
        ):
            result.append(named.pop(0))
        result.append(item)
    return result + named


def _clean(value: Any) -> Any:
    """``value`` without directives and nulls, as it is when there is nothing to merge with."""
    if isinstance(value, dict):
        return {
            name: _clean(entry)
            for name, entry in value.items()
            if entry is not None
            and not name.startswith("$")
            and not (isinstance(entry, dict) and _DIRECTIVE in entry)
        }
    if isinstance(value, list):
        return [
            _clean(item) for item in value if not (isinstance(item, dict) and _DIRECTIVE in item)
        ]
    return value
