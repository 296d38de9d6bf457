"""Rules of LimitRange and ResourceQuota themselves: what follows, what contradicts itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from beamlit_operator.devcluster.apiserver.amounts import Amount
from beamlit_operator.devcluster.apiserver.errors import (
    Cause,
    bad_value,
    forbidden_field,
    required,
)
from beamlit_operator.devcluster.apiserver.quota_usage import SCOPES
from beamlit_operator.kube import Json

_NOT_FOR_PODS: Final = ("default", "defaultRequest")


def default_limit_range(item: Json) -> None:
    """Fills in, in place, what follows: default from max, defaultRequest from default or min."""
    for limit in (item.get("spec") or {}).get("limits") or ():
        if not limit or limit.get("type") != "Container":
            continue
        _fill(limit, "default", limit.get("max"))
        _fill(limit, "defaultRequest", limit.get("default"))
        _fill(limit, "defaultRequest", limit.get("min"))


def _fill(limit: Json, field: str, values: Any) -> None:
    for name, text in (values or {}).items():
        limit.setdefault(field, {}).setdefault(name, text)


def limit_range_causes(item: Json) -> Iterator[Cause]:
    """What contradicts itself: min ≤ defaultRequest ≤ default ≤ max."""
    for index, limit in enumerate((item.get("spec") or {}).get("limits") or ()):
        where = f"spec.limits[{index}]"
        if not limit or not limit.get("type"):
            yield required(f"{where}.type")
            continue
        if limit.get("type") == "Pod":
            for field in _NOT_FOR_PODS:
                if limit.get(field):
                    yield forbidden_field(
                        f"{where}.{field}", "may not be specified when `type` is 'Pod'"
                    )
            continue
        names = sorted({name for field in _ORDER for name in limit.get(field) or ()})
        for name in names:
            yield from _order_causes(limit, name, where)


_ORDER: Final = {"min": "min", "defaultRequest": "default request", "default": "default"}


def _order_causes(limit: Json, name: str, where: str) -> Iterator[Cause]:
    texts = {field: (limit.get(field) or {}).get(name) for field in (*_ORDER, "max")}
    amounts = {field: Amount.of(text) for field, text in texts.items() if text is not None}

    def over(low: str, high: str, against: str) -> Iterator[Cause]:
        if low in amounts and high in amounts and amounts[low].value > amounts[high].value:
            yield bad_value(
                f"{where}.{low}[{name}]",
                str(amounts["max" if low == "default" else low]),
                f"{_ORDER[low]} value {amounts[low]} is greater than {against} value "
                f"{amounts[high]}",
            )

    yield from over("min", "max", "max")
    yield from over("min", "defaultRequest", "default request")
    yield from over("defaultRequest", "max", "max")
    yield from over("defaultRequest", "default", "default limit")
    yield from over("default", "max", "max")


def quota_causes(item: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with a quota itself."""
    spec = item.get("spec") or {}
    yield from _hard_causes((spec.get("hard") or {}).items())
    unknown = [scope for scope in spec.get("scopes") or () if scope not in SCOPES]
    if unknown:
        yield _listed("spec.scopes", unknown, "unsupported scope")
    if old is not None and (old.get("spec") or {}).get("scopes") != spec.get("scopes"):
        yield _listed("spec.scopes", spec.get("scopes") or [], "field is immutable")


def _listed(where: str, values: list[str], detail: str) -> Cause:
    text = ",".join(f'"{value}"' for value in values)
    return Cause("FieldValueInvalid", f"Invalid value: [{text}]: {detail}", where)


_STANDARD: Final = frozenset(
    [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "requests.storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ]
)
_WHOLE: Final = frozenset(
    [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ]
)


def _hard_causes(hard: Iterable[tuple[str, Any]]) -> Iterator[Cause]:
    for name, text in hard:
        where = f"spec.hard[{name}]"
        if "/" not in name and name not in _STANDARD:
            if not name.startswith(("requests.", "limits.", "count.")):
                yield bad_value(where, name, "must be a standard resource type or fully qualified")
            yield bad_value(where, name, "must be a standard resource for quota")
        amount = Amount.of(text)
        if amount.value < 0:
            yield bad_value(where, str(amount), "must be greater than or equal to 0")
        if (name in _WHOLE or name.startswith("count/")) and amount.value.denominator != 1:
            yield bad_value(where, str(amount), "must be an integer")
