"""Watches the definitions of our four kinds, and tells when they are not those of this version.

The operator works on in any case: it reads leniently, and leaves out of a status what an older
definition lacks, since server-side apply would refuse all of it. The difference is told by a log
line, by an Event on the operator's namespace and by a metric. Definitions that may not be read
(roles of an older version) say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from beamlit_operator.api import Reason
from beamlit_operator.api.definitions import NAMES, Differences, compare, known
from beamlit_operator.controllers.plan import Announcement
from beamlit_operator.kube import CUSTOM_RESOURCE_DEFINITIONS, Change, Json, KubeClient, Reflector

log = logging.getLogger(__name__)


class Definitions:
    """What the cluster says of our kinds."""

    def __init__(
        self,
        client: KubeClient,
        *,
        tell: Callable[[Announcement], None],
        on_change: Callable[[str], None],
    ) -> None:
        """``tell`` gets what is worth an Event, from :meth:`lead` on; ``on_change`` the kind whose
        definition was replaced by one with other fields."""
        self._on_change = on_change
        self._tell = tell
        self._leads = False
        self._wanted = known()
        self._told: dict[str, Differences] = {}
        # One by one, so that the right to read them can be a right to read these.
        self._reflectors = {
            name: Reflector(
                client,
                CUSTOM_RESOURCE_DEFINITIONS,
                field_selector=f"metadata.name={name}",
                on_change=self._changed,
            )
            for name in NAMES
        }

    @property
    def reflectors(self) -> list[Reflector]:
        """To be run. Nothing waits for them."""
        return [*self._reflectors.values()]

    def lead(self) -> None:
        """From now on this operator is the one that writes Events; what is so is told now."""
        self._leads = True
        for found in self._told.values():
            self._announce(found)

    def _announce(self, found: Differences) -> None:
        if self._leads:
            for sentence in found.sentences():
                self._tell(Announcement("Warning", Reason.DEFINITION_DIFFERS, sentence))

    def lacking(self, kind: str) -> tuple[str, ...]:
        """The fields that the cluster's definition of a kind lacks, as far as it is known."""
        return next((each.lacking for each in self._told.values() if each.kind == kind), ())

    async def wait(self, within: float) -> None:
        """Returns when all were read, and after so many seconds in any case."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                for reflector in self._reflectors.values():
                    await reflector.wait_synced()

    def differences(self) -> dict[tuple[str, str], int]:
        """How many fields differ, by kind and by how the cluster is: older or newer."""
        counts: dict[tuple[str, str], int] = {}
        for name, reflector in self._reflectors.items():
            if reflector.synced:
                found = self._told.get(name) or self._compare(name, None)
                older = len(found.lacking) + (not found.served)
                counts |= {(found.kind, "older"): older, (found.kind, "newer"): len(found.unknown)}
        return counts

    def _changed(self, change: Change) -> None:
        name = change.key.name
        found = self._compare(name, change.new)
        before = self._told.get(name)
        self._told[name] = found
        if before == found:
            return
        for sentence in found.sentences():
            log.warning("%s", sentence)
        self._announce(found)
        if before is not None:
            # What was dropped of a status until now can be written.
            self._on_change(found.kind)
            if found.equal:
                log.info("the cluster's definition of %s is this version's again", found.kind)

    def _compare(self, name: str, live: Json | None) -> Differences:
        return compare(name, live, self._wanted[name])
