"""Objects of our kinds as the operator holds them: packed, and read when they are looked at.

An object that cannot be parsed (stored under another schema, or with validation bypassed) is held
too, with what is wrong with it: a controller turns that into a condition instead of failing.

To parse one takes some twenty microseconds, and to keep it parsed ten times the memory. So only
those that were looked at last are kept so, and what is asked of thousands at once has a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from beamlit_operator.api import conditions
from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.controllers.packed import Packed, packed
from beamlit_operator.kube import Json, ObjectKey

T = TypeVar("T", bound=Part)

KEPT_OPEN = 128
"""How many objects are kept as they were read, beside their packed form."""

UNSEEN = "NotReconciled"
"""Stands for the reason of what has no condition yet."""


class _Opened(NamedTuple):
    raw: Json
    metadata: ObjectMeta
    parsed: Part | None
    problem: str


@dataclass(frozen=True, slots=True, eq=False)
class Held(Generic[T]):
    """One object. What is read of it is shared: never modify it."""

    model: type[T]
    packed: Packed
    key: ObjectKey
    """Its namespace and name."""
    generation: int
    deleting: bool
    """Whether its deletion was asked for."""
    unready: str
    """The reason of its `Ready` while that is not True; empty while it is, or cannot be read."""

    @property
    def raw(self) -> Json:
        """As it travelled, without its ``managedFields``."""
        return _open(self).raw

    @property
    def metadata(self) -> ObjectMeta:
        """Its metadata."""
        return _open(self).metadata

    @property
    def parsed(self) -> T | None:
        """None when it cannot be read, and then ``problem`` says why."""
        return cast("T | None", _open(self).parsed)

    @property
    def problem(self) -> str:
        """Why it cannot be read; empty when it can."""
        return _open(self).problem


def held(model: type[T], raw: Json) -> Held[T]:
    """Takes an object. ``managedFields`` are dropped: nobody reads them, and they are large.

    Raises:
        ValidationError: its metadata cannot be read.
    """
    metadata = {k: v for k, v in raw["metadata"].items() if k != "managedFields"}
    light = {**raw, "metadata": metadata}
    found = Held(
        model=model,
        packed=packed(light),
        key=ObjectKey(metadata.get("namespace", ""), metadata["name"]),
        generation=metadata.get("generation") or 0,
        deleting=metadata.get("deletionTimestamp") is not None,
        unready=_unready(light),
    )
    _open(found)
    return found


@lru_cache(maxsize=KEPT_OPEN)
def _open(item: Held[Any]) -> _Opened:
    return _read(item.model, item.packed.open())


def _read(model: type[Part], raw: Json) -> _Opened:
    try:
        parsed = model.model_validate(raw)
    except ValidationError as error:
        meta = ObjectMeta.model_validate(raw["metadata"])
        try:
            # The status is ours: an unreadable one is written anew instead of blocking the object.
            whole = model.model_validate({k: v for k, v in raw.items() if k != "status"})
            return _Opened(raw, meta, whole, "")
        except ValidationError:
            return _Opened(raw, meta, None, _sentences(error))
    return _Opened(raw, cast("Any", parsed).metadata, parsed, "")


def _unready(raw: Json) -> str:
    status = raw.get("status")
    told = status.get("conditions") if isinstance(status, dict) else None
    found = (each for each in (told if isinstance(told, list) else ()) if isinstance(each, dict))
    ready = next((each for each in found if each.get("type") == conditions.READY), None)
    if ready is None:
        return UNSEEN
    return "" if ready.get("status") == "True" else str(ready.get("reason"))


def _sentences(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)[:5]
    )
