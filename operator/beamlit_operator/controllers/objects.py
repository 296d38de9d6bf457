"""Objects of our kinds as the operator holds them: as they travelled, and parsed.

An object that cannot be parsed (stored under another schema, or with validation bypassed) is held
too, with what is wrong with it: a controller turns that into a condition instead of failing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from beamlit_operator.api.meta import ObjectMeta, Part
from beamlit_operator.kube import Json, ObjectKey

T = TypeVar("T", bound=Part)


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """One object: ``parsed`` is None when it cannot be read, and then ``problem`` says why."""

    raw: Json
    metadata: ObjectMeta
    parsed: T | None
    problem: str = ""

    @property
    def key(self) -> ObjectKey:
        """Its namespace and name."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def deleting(self) -> bool:
        """Whether its deletion was asked for."""
        return self.metadata.deletion_timestamp is not None


def held(model: type[T], raw: Json) -> Held[T]:
    """Reads an object. ``managedFields`` are dropped: nobody reads them, and they are large."""
    metadata = {k: v for k, v in raw["metadata"].items() if k != "managedFields"}
    light = {**raw, "metadata": metadata}
    meta = ObjectMeta.model_validate(metadata)
    try:
        return Held(light, meta, model.model_validate(light))
    except ValidationError as error:
        try:
            # The status is ours: an unreadable one is written anew instead of blocking the object.
            whole = model.model_validate({k: v for k, v in light.items() if k != "status"})
            return Held(light, meta, whole)
        except ValidationError:
            return Held(light, meta, None, _sentences(error))


def _sentences(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)[:5]
    )


def newer(candidate: Json, known: Json) -> bool:
    """Whether a version of an object is later than the one that is known.

    resourceVersions of one resource compare as numbers (KEP-5504); should a server's not be
    numbers, any other version counts as newer.
    """
    a = str(candidate["metadata"].get("resourceVersion", ""))
    b = str(known["metadata"].get("resourceVersion", ""))
    if candidate["metadata"].get("uid") != known["metadata"].get("uid"):
        return True
    if a.isdigit() and b.isdigit():
        return int(a) > int(b)
    return a != b
