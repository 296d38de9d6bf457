"""What admission is asked about a write, and what answers: webhooks, quota, limits, roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.served import Served
from beamlit_operator.devcluster.apiserver.store import Key
from beamlit_operator.kube import Json

Verb = Literal["CREATE", "UPDATE", "DELETE"]


@dataclass(frozen=True, slots=True)
class Review:
    """What admission is asked: ``new`` is None for DELETE, ``old`` for CREATE."""

    verb: Verb
    served: Served
    key: Key
    new: Json | None
    old: Json | None
    subresource: str
    options: Options


class Admission(Protocol):
    """Those who may change or refuse a write."""

    def concerns(self, review: Review) -> bool:
        """Whether anybody has to be asked; most writes are nobody's business."""
        ...

    async def mutate(self, review: Review) -> Json:
        """The object as the mutating webhooks leave it."""
        ...

    async def validate(self, review: Review) -> None:
        """Raises ApiError when a webhook refuses."""
        ...
