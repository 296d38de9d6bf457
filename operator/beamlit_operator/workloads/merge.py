"""A user's pod template laid over ours, by the rules of Kubernetes' strategic merge patch.

| in the template                       | what becomes of ours                                     |
|---------------------------------------|----------------------------------------------------------|
| an object                             | merged, field by field                                   |
| a value, a list without a key         | replaced                                                 |
| null                                  | removed                                                  |
| a list with a key (`KEYS`)            | entries of one key are merged, new ones come behind ours |
| `{$patch: delete, KEY: ...}` in it    | the entries of that key are removed, before others merge |
| `{$patch: replace}` in it             | replaced by the other entries                            |
| an object with `$patch: replace`      | replaced by it                                           |
| an object with `$patch: delete`       | emptied                                                  |
| `$patch: merge`                       | what happens anyway; Kubernetes refuses it               |
| `$retainKeys: [...]`                  | only these fields of the object stay, the template's too |
| `$deleteFromPrimitiveList/NAME: [..]` | these values are removed from the list NAME              |
| `$setElementOrder/NAME: [...]`        | the list NAME is put into this order                     |

Source: "Update API Objects in Place Using kubectl patch" and the directives of kubectl's strategic
merge patch (sig-cli, `strategic-merge-patch.md`). What differs on purpose:

- new entries come behind ours, where Kubernetes puts them in front: a sidecar does not become the
  first container, and an init container of the user's finds the files fetched;
- tolerations are added, where Kubernetes replaces the list: ours are what a gpu flavor needs;
- an object with `$patch: replace` that ours lacks is taken, where Kubernetes takes nothing of it;
- ports of one number and different protocols are different ports, and spread constraints of one
  topology key that differ in `whenUnsatisfiable` are different constraints, as server-side apply
  has it. By the patch's keys alone one would overwrite the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "ownerReferences": "uid",
}
"""The lists of a pod template that are merged, with the field that tells their entries apart
(`x-kubernetes-patch-merge-key`). A name means the same wherever it stands in a pod template."""

SETS = frozenset({"finalizers"})
"""Lists of values that are merged."""

FURTHER: Mapping[str, tuple[str, Any]] = {
    "ports": ("protocol", "TCP"),
    "topologySpreadConstraints": ("whenUnsatisfiable", None),
}
"""What else tells entries apart (`x-kubernetes-list-map-keys`), and what it is when not said."""

_APPENDED = frozenset({"tolerations"})

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_VALUES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Json:
    """`below` with `above` laid over it. Neither is changed; what makes no sense has no effect."""
    directive = above.get(_PATCH)
    if directive == "delete":
        return {}
    if directive == "replace":
        return _plain_object(above)
    result = dict(below)
    retained = above.get(_RETAIN)
    if isinstance(retained, list):
        result = {name: value for name, value in result.items() if name in retained}
    for name, values in _directed(above, _DELETE_VALUES):
        if isinstance(result.get(name), list | tuple):
            result[name] = [each for each in result[name] if each not in values]
    for name, value in above.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, list | tuple):
            old = result.get(name)
            result[name] = _merged_list(name, old if isinstance(old, list | tuple) else (), value)
        else:
            result[name] = value
    for name, order in _directed(above, _ORDER):
        if isinstance(result.get(name), list | tuple):
            result[name] = _arranged(name, result[name], order)
    return result


def _merged_list(name: str, below: Sequence[Any], above: Sequence[Any]) -> list[Any]:
    if name in _APPENDED or name in SETS:
        fresh = [_plain(each) for each in above]
        return [*below, *(each for each in fresh if each not in below)]
    if name not in KEYS or not all(isinstance(each, Mapping) for each in above):
        return _plain_list(above)
    if any(each.get(_PATCH) == "replace" for each in above):
        return _plain_list(above)
    removed = [each for each in above if each.get(_PATCH) == "delete"]
    entries: dict[Any, Any] = {
        _identity(name, each): each
        for each in below
        if not any(_is_meant(name, each, by) for by in removed)
    }
    for each in above:
        if each.get(_PATCH) != "delete":
            identity = _identity(name, each)
            entries[identity] = merged(entries.get(identity, {}), each)
    return list(entries.values())


def _identity(name: str, entry: Any) -> Any:
    """What tells an entry of a list from the others."""
    if not isinstance(entry, Mapping):
        return repr(entry)
    more, default = FURTHER.get(name, ("", None))
    return repr(entry.get(KEYS[name])), repr(entry.get(more) or default)


def _is_meant(name: str, entry: Any, by: Mapping[str, Any]) -> bool:
    """Whether ``by`` removes an entry: of its key, and of the rest of it if it says that."""
    if not isinstance(entry, Mapping) or entry.get(KEYS[name]) != by.get(KEYS[name]):
        return False
    more, default = FURTHER.get(name, ("", None))
    return more not in by or (entry.get(more) or default) == by[more]


def _arranged(name: str, entries: Sequence[Any], order: Sequence[Any]) -> list[Any]:
    """``entries`` in an order of keys or values. An entry that it does not name stays behind those
    that stood before it."""
    wanted = [_key(name, each) for each in order]
    named = [each for each in entries if _key(name, each) in wanted]
    before = {id(each): place for place, each in enumerate(entries)}
    named.sort(key=lambda each: wanted.index(_key(name, each)))
    result: list[Any] = []
    for each in (each for each in entries if _key(name, each) not in wanted):
        while named and before[id(named[0])] < before[id(each)]:
            result.append(named.pop(0))
        result.append(each)
    return result + named


def _key(name: str, entry: Any) -> Any:
    return entry.get(KEYS[name]) if name in KEYS and isinstance(entry, Mapping) else entry


def _directed(above: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, list[Any]]]:
    """The fields that a directive is about, with its list."""
    for name, value in above.items():
        if name.startswith(prefix) and isinstance(value, list):
            yield name.removeprefix(prefix), value


def _plain(value: Any) -> Any:
    """A value as it is when there is nothing to merge it with: without directives and nulls."""
    if isinstance(value, Mapping):
        return _plain_object(value)
    return _plain_list(value) if isinstance(value, list | tuple) else value


def _plain_object(value: Mapping[str, Any]) -> Json:
    return {
        name: _plain(each)
        for name, each in value.items()
        if each is not None and not name.startswith("$")
    }


def _plain_list(value: Sequence[Any]) -> list[Any]:
    return [_plain(each) for each in value if not (isinstance(each, Mapping) and _PATCH in each)]


def directive_problem(template: Mapping[str, Any], path: str) -> str | None:
    """What of a template the rules above have no meaning for, with the field; None if nothing.

    Args:
        template: an object of the template.
        path: where it stands, for the sentence.
    """
    for name, value in template.items():
        if found := _field_problem(template, name, value, path):
            return found
    return None


def _field_problem(template: Mapping[str, Any], name: str, value: Any, path: str) -> str | None:
    where = f"{path}.{name}"
    if name == _PATCH:
        if value not in ("merge", "replace", "delete"):
            return f"{where} is {value!r}: use merge, replace or delete"
    elif name == _RETAIN:
        if not isinstance(value, list):
            return f"{where} must be a list of names of fields"
        for given in template:
            if not given.startswith("$") and given not in value:
                return f"{where} leaves out {given}, which is set beside it: add it to the list"
    elif name.startswith((_DELETE_VALUES, _ORDER)):
        if not isinstance(value, list):
            return f"{where} must be a list"
    elif name.startswith("$"):
        return (
            f"{where} is no directive: use {_PATCH}, {_RETAIN}, {_DELETE_VALUES}NAME or "
            f"{_ORDER}NAME"
        )
    elif isinstance(value, Mapping):
        return directive_problem(value, where)
    elif isinstance(value, list) and name in KEYS:
        return _entries_problem(name, value, where)
    elif isinstance(value, list) and _is_directed(value):
        return f"{where} is no list with a key, so no directive counts in it: write the whole list"
    return None


def _is_directed(value: Any) -> bool:
    """Whether there is a directive anywhere below."""
    if isinstance(value, Mapping):
        return any(name.startswith("$") or _is_directed(each) for name, each in value.items())
    return isinstance(value, list) and any(_is_directed(each) for each in value)


def _entries_problem(name: str, entries: Sequence[Any], where: str) -> str | None:
    key = KEYS[name]
    for index, each in enumerate(entries):
        if not isinstance(each, Mapping):
            return f"{where}[{index}] must be an object"
        if key not in each and each.get(_PATCH) != "replace":
            return f"{where}[{index}] has no {key}, by which entries are told apart: give it one"
        if found := directive_problem(each, f"{where}[{each.get(key, index)}]"):
            return found
    return None
