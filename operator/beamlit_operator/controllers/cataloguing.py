"""The cluster's own catalogue: a ConfigMap in the operator's namespace, followed live.

What its entries mean is decided in `policy.extending`; this module notices changes, hands on the
catalogue that results, and tells people what is wrong in it: a line in the log for each entry, and
an Event on the ConfigMap by the operator that leads.

| the ConfigMap         | the catalogue                                                |
|-----------------------|--------------------------------------------------------------|
| is not there, or gone | the built-in one                                             |
| is there              | the built-in one with its good entries                       |
| changed               | made anew; everything that reads a catalogue is told at once |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.plan import Announcement
from beamlit_operator.kube import CONFIG_MAPS, Change, Json, KubeClient, ObjectKey, Reflector
from beamlit_operator.policy import Catalogue, built_in
from beamlit_operator.policy.extending import Extension, extended

log = logging.getLogger(__name__)

PROBLEM = "CatalogueProblem"
"""Reason of the Event that names entries which were left out."""

OVERRIDDEN = "CatalogueOverridden"
"""Reason of the Event that names built-in entries which mean something else now."""


class Cataloguing:
    """Holds the catalogue that is in force, and keeps it so."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        on_change: Callable[[Catalogue], None],
        announcer: Announcer,
    ) -> None:
        """``on_change`` gets every new catalogue, on the event loop."""
        self.catalogue = built_in()
        self._on_change = on_change
        self._announcer = announcer
        self._texts: dict[str, str] = {}
        self._untold: tuple[Json, Extension] | None = None
        self._changed = asyncio.Event()
        self.reflector = Reflector(
            client,
            CONFIG_MAPS,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            on_change=self._put,
        )
        self._name = name

    async def tell(self) -> None:
        """Writes the Events about what is read; to be run by the leader, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            untold, self._untold = self._untold, None
            if untold is None:
                continue
            about, extension = untold
            where = ObjectKey(about["metadata"].get("namespace", ""), self._name)
            for reason, sentences in (
                (PROBLEM, extension.problems),
                (OVERRIDDEN, extension.overridden),
            ):
                if sentences:
                    event = Announcement("Warning", reason, "; ".join(sentences))
                    await self._announcer.announce(where, about, event)

    def _put(self, change: Change) -> None:
        # A field selector is asked for, but a server may not know it.
        if change.key.name != self._name:
            return
        texts: dict[str, str] = dict((change.new or {}).get("data") or {})
        if texts == self._texts:
            return
        self._texts = texts
        extension = extended(texts)
        for sentence in extension.problems:
            log.warning("ConfigMap %s: left out: %s", self._name, sentence)
        for sentence in extension.overridden:
            log.warning("ConfigMap %s: %s", self._name, sentence)
        log.info(
            "the catalogue changed: %d places, %d gpu flavors",
            len(extension.catalogue.places),
            len(extension.catalogue.gpus),
        )
        self.catalogue = extension.catalogue
        if change.new is not None:
            about = {"apiVersion": "v1", "kind": "ConfigMap", **change.new}
            self._untold = (about, extension)
            self._changed.set()
        self._on_change(extension.catalogue)
