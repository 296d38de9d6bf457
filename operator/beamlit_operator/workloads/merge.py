"""A user's pod template laid over ours, by the rules of Kubernetes' strategic merge patch.

Maps are merged, lists replaced, null removes a field; but lists of things with a key are merged by
it, and an entry `{"$patch": "delete", <key>: ...}` removes the one of that key. The keys are those
of the API's own types (`patchMergeKey` in k8s.io/api/core/v1/types.go).
"""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
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
}

_APPENDED = frozenset({"tolerations"})
"""Lists without a key of which both sides' entries are kept: to replace ours would lose the
toleration that a gpu flavor needs, and one more toleration only ever allows."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Json:
    """`below` with `above` laid over it. Neither is changed."""
    result = dict(below)
    for name, value in above.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, list | tuple):
            result[name] = _merged_list(name, result.get(name) or [], value)
        else:
            result[name] = value
    return result


def _merged_list(name: str, below: Sequence[Any], above: Sequence[Any]) -> list[Any]:
    if name in _APPENDED:
        return [*below, *(each for each in above if each not in below)]
    key = _KEYS.get(name)
    if key is None or not all(isinstance(each, Mapping) and key in each for each in above):
        return list(above)
    entries = {each[key]: each for each in below if isinstance(each, Mapping) and key in each}
    for each in above:
        if each.get("$patch") == "delete":
            entries.pop(each[key], None)
        else:
            entries[each[key]] = merged(entries.get(each[key], {}), each)
    return list(entries.values())
