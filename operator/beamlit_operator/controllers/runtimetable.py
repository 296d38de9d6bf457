"""The runtime presets in force: ConfigMaps with a label in the operator's namespace, followed live.

What their rows mean is decided in `workloads.presets`; this module notices changes, hands on the
table that results, and tells people of rows that were left out: a line in the log, a metric, and an
Event on the ConfigMap by the operator that leads.

| a row                   | the table                                                           |
|-------------------------|---------------------------------------------------------------------|
| is good                 | has it, over the built-in row of its type                           |
| is spoilt               | keeps what the row said before, for as long as this process runs;   |
|                         | without that, has the built-in row or none                          |
| is mended               | has it                                                              |
| or its ConfigMap goes   | has the built-in row of the type, or none                           |

A deployment whose preset changed gets a new revision by this: that is what its admin asks for. One
whose type is gone keeps what it runs, and says that the type is not known.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from beamlit_operator.api import labels
from beamlit_operator.controllers.events import Announcer
from beamlit_operator.controllers.plan import Announcement
from beamlit_operator.kube import CONFIG_MAPS, Change, Json, KubeClient, ObjectKey, Reflector
from beamlit_operator.workloads.presets import Problem, Table, built_in, extended

log = logging.getLogger(__name__)

PROBLEM = "RuntimeProblem"
"""Reason of the Event that names rows which were left out."""

SELECTOR = f"{labels.RUNTIMES}=true"


class RuntimeTable:
    """Holds the presets that are in force, and keeps them so."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        on_change: Callable[[Table], None],
        announcer: Announcer,
    ) -> None:
        """``on_change`` gets every new table, on the event loop."""
        self.table = built_in()
        self._on_change = on_change
        self._announcer = announcer
        self._config_maps: dict[str, Json] = {}
        self._known: dict[str, tuple[Problem, ...]] = {}
        self._untold: dict[str, str] = {}
        self._changed = asyncio.Event()
        self.reflector = Reflector(
            client,
            CONFIG_MAPS,
            namespace=namespace,
            label_selector=SELECTOR,
            on_change=self._put,
        )

    def left_out(self) -> Mapping[str, int]:
        """How many rows of each ConfigMap cannot be used; those without any are not in it."""
        return Counter(each.config_map for each in self.table.problems)

    async def tell(self) -> None:
        """Writes the Events about rows that were left out; to be run by the leader, until
        cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            untold, self._untold = self._untold, {}
            for name, sentences in untold.items():
                if (about := self._config_maps.get(name)) is None:
                    continue
                where = ObjectKey(about["metadata"].get("namespace", ""), name)
                event = Announcement("Warning", PROBLEM, sentences)
                await self._announcer.announce(where, about, event)

    def _put(self, change: Change) -> None:
        name = change.key.name
        before = _texts(self._config_maps.get(name))
        if change.new is None:
            self._config_maps.pop(name, None)
        else:
            about = {"apiVersion": "v1", "kind": "ConfigMap", **change.new}
            self._config_maps[name] = about
        if before == _texts(self._config_maps.get(name)):
            return
        rows = {each: _texts(item) for each, item in self._config_maps.items()}
        previous = self.table
        self.table = extended(rows, last=previous.good)
        self._note_problems()
        if self.table.presets != previous.presets:
            added = sorted(kind for kind, of in self.table.sources.items() if len(of) > 1)
            more = sorted(set(self.table.presets) - set(built_in().presets))
            log.info("the runtimes changed: %s overridden, %s added", added, more)
            self._on_change(self.table)

    def _note_problems(self) -> None:
        found: dict[str, tuple[Problem, ...]] = {}
        for each in self.table.problems:
            found[each.config_map] = (*found.get(each.config_map, ()), each)
        for name, problems in found.items():
            if self._known.get(name) == problems:
                continue
            for each in problems:
                log.warning("runtimes: %s", each)
            self._untold[name] = "; ".join(str(each) for each in problems)
            self._changed.set()
        self._known = found


def _texts(config_map: Json | None) -> dict[str, str]:
    return dict((config_map or {}).get("data") or {})
