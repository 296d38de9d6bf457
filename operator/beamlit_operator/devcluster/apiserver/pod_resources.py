"""What a pod asks for and may use at most, as scheduler, quota and limits count it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from beamlit_operator.devcluster.apiserver.amounts import NOTHING, Amount, most
from beamlit_operator.kube import Json

Kind = Literal["requests", "limits"]
Amounts = dict[str, Amount]


def of_container(container: Json, kind: Kind) -> Amounts:
    """The container's own numbers; a quantity nobody can read counts as absent."""
    found: Amounts = {}
    for name, text in ((container.get("resources") or {}).get(kind) or {}).items():
        try:
            found[name] = Amount.of(text)
        except ValueError:
            continue
    return found


def of_pod(spec: Json, kind: Kind) -> Amounts:
    """All containers together, or the init container that needs more, and the overhead (KEP-753).

    An init container runs beside the sidecars that started before it.
    """
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, of_container(container, kind))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = of_container(container, kind)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            _add(total, own)
            _raise(peak, sidecars)
        else:
            _add(own, sidecars)
            _raise(peak, own)
    _raise(total, peak)
    overhead = {name: Amount.of(text) for name, text in (spec.get("overhead") or {}).items()}
    if kind == "requests":
        _add(total, overhead)
    else:
        _add(total, {name: amount for name, amount in overhead.items() if name in total})
    return total


def _add(total: Amounts, more: Mapping[str, Amount]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, NOTHING) + amount


def _raise(total: Amounts, other: Mapping[str, Amount]) -> None:
    for name, amount in other.items():
        total[name] = most(total.get(name, NOTHING), amount)
