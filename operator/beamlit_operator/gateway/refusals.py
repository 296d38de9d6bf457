"""What Envoy refused of the configuration, by the deployment it concerns. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from beamlit_operator.gateway.ads import Settled
from beamlit_operator.gateway.names import DeploymentKey, RevisionKey
from beamlit_operator.gateway.resources import Resource, ResourceType

GATEWAY = "gateway"
"""Stands in a report where a deployment's key would, for what concerns no single deployment. Keys
of deployments have a slash."""

_MARK = re.compile(r"goo\.gle/debug\w+")

MAX_MESSAGE = 1000
"""Characters of Envoy's words that are told: it may quote the whole resource."""


class Refusals:
    """Remembers what is refused until it is taken or gone."""

    def __init__(self, resources: Mapping[ResourceType, Mapping[str, Resource]]) -> None:
        """``resources`` are those that Envoy should have now."""
        self._resources = resources
        self._messages: dict[tuple[ResourceType, str], str] = {}

    def settled(self, settled: Settled) -> None:
        """Envoy answered a response."""
        if settled.refused and not settled.culprit:
            return
        for name in settled.versions:
            if settled.refused:
                self._messages[settled.type, name] = settled.refused
            else:
                self._messages.pop((settled.type, name), None)

    def listener(self) -> str:
        """Why Envoy takes no callers, if it refused where they come in."""
        return next(
            (
                _told(type_, name, words)
                for (type_, name), words in self._messages.items()
                if type_ in (ResourceType.LISTENER, ResourceType.ROUTES)
            ),
            "",
        )

    def report(self, routes: Mapping[DeploymentKey, str]) -> dict[str, str]:
        """Messages by ``<workspace>/<deployment>`` or :data:`GATEWAY`; ``routes`` are Envoy's words
        on deployments whose routes are left out of the table."""
        found: dict[str, str] = {}
        for (type_, name), words in list(self._messages.items()):
            if name not in self._resources[type_]:
                del self._messages[type_, name]
                continue
            revision = RevisionKey.of_cluster(name)
            about = str(revision.deployment_key) if revision is not None else GATEWAY
            if type_ is not ResourceType.ROUTES or not routes:
                found[about] = _told(type_, name, words)
        for key, words in routes.items():
            found[str(key)] = f"Envoy refused its routes: {_short(words)}"
        return found


def _told(type_: ResourceType, name: str, words: str) -> str:
    return f"Envoy refused {type_.name.lower()} {name}: {_short(words)}"


def _short(words: str) -> str:
    """In one line, and the same each time: protobuf's debug output starts with a changing mark."""
    line = " ".join(_MARK.sub("", words).split())
    return line if len(line) <= MAX_MESSAGE else line[:MAX_MESSAGE] + "..."
