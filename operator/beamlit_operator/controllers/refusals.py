"""What the gateways' Envoys refuse of their configuration, by deployment.

Gateways tell it beside their load, which the autoscaler asks for anyhow:

| gateways                       | what counts                                          |
|--------------------------------|------------------------------------------------------|
| answer                         | what any of them refuses                             |
| one falls silent               | what it said last, for :data:`KEEP_SECONDS`          |
| none has answered yet, or left | nothing is known: conditions stay as they are until  |
|                                | one does                                             |
| there is none to ask           | nothing is refused                                   |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from beamlit_operator.autoscaling import GatewayLoad
from beamlit_operator.autoscaling.loads import KEEP_SECONDS
from beamlit_operator.kube import ObjectKey

GATEWAY = "gateway"
"""Stands where a deployment's key would, for what concerns no single deployment."""


@dataclass(frozen=True, slots=True)
class _Said:
    refused: Mapping[str, str]
    at: float


class GatewayRefusals:
    """Merges what the gateways say and tells of every change."""

    def __init__(
        self,
        *,
        asked: bool,
        on_change: Callable[[ObjectKey], None],
        on_gateway: Callable[[str], None],
        written: Callable[[], Iterable[ObjectKey]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``asked``: whether there are gateways to ask. ``on_change`` hears of deployments of which
        something else is refused now, ``on_gateway`` what is refused that concerns no single one
        (empty: nothing any more)."""
        self._asked = asked
        self._on_change = on_change
        self._on_gateway = on_gateway
        self._written = written
        self._clock = clock
        self._said: dict[str, _Said] = {}
        self._merged: dict[str, str] = {}

    def of(self, deployment: ObjectKey) -> str | None:
        """What is refused of a deployment; empty for nothing, None while that is not known."""
        if self._asked and not self._said:
            return None
        return self._merged.get(f"{deployment.namespace}/{deployment.name}", "")

    def note(self, reports: Mapping[str, GatewayLoad]) -> None:
        """Takes the reports of the gateways that answered, by address."""
        now = self._clock()
        unknown_before = not self._said
        for address, load in reports.items():
            self._said[address] = _Said(load.refused, now)
        for address in [a for a, said in self._said.items() if now - said.at > KEEP_SECONDS]:
            del self._said[address]
        if not self._said:
            return
        merged: dict[str, str] = {}
        for address in sorted(self._said, reverse=True):
            merged |= self._said[address].refused
        before, self._merged = self._merged, merged
        changed = {k for k in merged.keys() | before.keys() if merged.get(k) != before.get(k)}
        if unknown_before:
            # What was written stood meanwhile, also if it was an earlier operator that wrote it.
            changed |= {f"{key.namespace}/{key.name}" for key in self._written()}
        for key in changed:
            self._tell(key, merged.get(key, ""))

    def _tell(self, key: str, message: str) -> None:
        namespace, slash, name = key.partition("/")
        if slash:
            self._on_change(ObjectKey(namespace, name))
        elif key == GATEWAY:
            self._on_gateway(message)
