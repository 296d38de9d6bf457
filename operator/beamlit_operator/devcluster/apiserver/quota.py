"""ResourceQuota: what a namespace uses, counted as it changes, and refusals beyond it.

The count of a quota is built once, when the quota appears, and then follows every commit; neither
a request nor a status looks at all objects.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from beamlit_operator.devcluster.apiserver.admission_review import Review
from beamlit_operator.devcluster.apiserver.amounts import NOTHING, Amount
from beamlit_operator.devcluster.apiserver.api import Api
from beamlit_operator.devcluster.apiserver.errors import forbidden
from beamlit_operator.devcluster.apiserver.pod_resources import Amounts
from beamlit_operator.devcluster.apiserver.preparing import Options
from beamlit_operator.devcluster.apiserver.quota_usage import (
    in_scope,
    tracks,
    unspecified,
    usage,
)
from beamlit_operator.devcluster.apiserver.store import Entry, Event, Key
from beamlit_operator.devcluster.apiserver.users import component
from beamlit_operator.kube import ApiError, Json

log = logging.getLogger(__name__)

_OPTIONS: Final = Options(
    manager="kube-controller-manager", user=component("resourcequota-controller")
)
_CHANGING: Final = frozenset(("services", "persistentvolumeclaims"))
"""Types whose objects may come to use more while they exist."""


@dataclass(slots=True, eq=False)
class Ledger:
    """One quota and what is used of it."""

    entry: Entry
    hard: Amounts
    used: Amounts = field(default_factory=dict)

    def count(self, resource: str, item: Json, sign: int) -> bool:
        """Books an object in (1) or out (-1); whether it matters to this quota."""
        if not in_scope(self.entry.obj["spec"], resource, item):
            return False
        mine = False
        for name, amount in usage(resource, item).items():
            if name in self.hard:
                before = self.used.get(name, NOTHING)
                self.used[name] = before + amount if sign > 0 else before - amount
                mine = True
        return mine


class Quotas:
    """The admission step, and the status of all quotas."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ledgers: dict[str, dict[str, Ledger]] = {}
        self._dirty: set[Key] = set()
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Counts what is in the store."""
        for entry in self._api.store.collection("resourcequotas").objects.values():
            self._open(entry)

    def observe(self, resource: str, event: Event) -> None:
        """Called after every commit."""
        key = event.entry.key
        if resource == "resourcequotas":
            self._quota_changed(event)
        for name, ledger in self._ledgers.get(key.namespace, {}).items():
            mine = False
            if event.before is not None:
                mine |= ledger.count(resource, event.before.obj, -1)
            if event.type != "DELETED":
                mine |= ledger.count(resource, event.entry.obj, 1)
            if mine and not (resource == "resourcequotas" and event.type == "MODIFIED"):
                self._mark(Key(key.namespace, name))

    def _quota_changed(self, event: Event) -> None:
        key, entry = event.entry.key, event.entry
        here = self._ledgers.get(key.namespace, {})
        known = here.get(key.name)
        if event.type == "DELETED":
            here.pop(key.name, None)
            if not here:
                self._ledgers.pop(key.namespace, None)
        elif known is not None and known.entry.obj.get("spec") == entry.obj.get("spec"):
            known.entry = entry
        else:
            # The commit is in the store already; what is counted below must not be counted twice.
            self._open(entry, without=(key if known is None else None))

    def _open(self, entry: Entry, without: Key | None = None) -> None:
        hard = {
            name: Amount.of(text)
            for name, text in ((entry.obj.get("spec") or {}).get("hard") or {}).items()
        }
        ledger = Ledger(entry, hard)
        for collection in self._api.store.collections:
            if not tracks(collection.resource, hard):
                continue
            for other in collection.select(entry.key.namespace):
                if collection.resource != "resourcequotas" or other.key != without:
                    ledger.count(collection.resource, other.obj, 1)
        self._ledgers.setdefault(entry.key.namespace, {})[entry.key.name] = ledger
        self._mark(entry.key)

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._changed.set()

    # Admission

    def concerns(self, review: Review) -> bool:
        """Writes that may use more, where there is a quota."""
        if review.key.namespace not in self._ledgers or review.subresource:
            return False
        return review.verb == "CREATE" or (
            review.verb == "UPDATE" and review.served.resource in _CHANGING
        )

    async def mutate(self, review: Review) -> Json:
        """Nothing changes."""
        assert review.new is not None
        return review.new

    async def validate(self, review: Review) -> None:
        """Refuses with 403. Nothing runs between this, the last step, and the commit."""
        assert review.new is not None
        served, key = review.served, review.key
        ledgers = self._ledgers.get(key.namespace, {})
        for name in sorted(ledgers):
            problem = _problem(ledgers[name], served.resource, review.new, review.old)
            if problem:
                raise forbidden(served.group, served.plural, key.name, problem)

    # Status

    async def run(self) -> None:
        """Writes statuses until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            dirty, self._dirty = self._dirty, set()
            for key in dirty:
                try:
                    await self._write(key)
                except Exception:
                    # One quota must not end the count of all.
                    log.exception("the status of resourcequota %s/%s failed", *key)

    async def _write(self, key: Key) -> None:
        ledger = self._ledgers.get(key.namespace, {}).get(key.name)
        if ledger is None:
            return
        hard = {name: str(amount) for name, amount in sorted(ledger.hard.items())}
        used = {name: str(ledger.used.get(name, NOTHING)) for name in hard}
        status = {"hard": hard, "used": used}
        if ledger.entry.obj.get("status") == status:
            return
        served = self._api.registry.find("", "v1", "resourcequotas")
        body = {**ledger.entry.obj, "status": status}
        body["metadata"] = {**body["metadata"]}
        body["metadata"].pop("resourceVersion")
        try:
            await self._api.update(served, key, body, _OPTIONS, subresource="status")
        except ApiError as error:
            if not error.not_found:
                log.warning("status of resourcequota %s/%s: %s", *key, error)


def _problem(ledger: Ledger, resource: str, new: Json, old: Json | None) -> str:
    """Why this quota refuses ``new``; empty when it does not."""
    spec = ledger.entry.obj["spec"]
    name = ledger.entry.key.name
    if not in_scope(spec, resource, new):
        return ""
    if resource == "pods":
        lacking = unspecified(new["spec"], ledger.hard)
        if lacking:
            listed = "; ".join(f"{what} for: {','.join(who)}" for what, who in lacking.items())
            return f"failed quota: {name}: must specify {listed}"
    before = usage(resource, old) if old is not None and in_scope(spec, resource, old) else {}
    more: Amounts = {}
    for what, amount in usage(resource, new).items():
        delta = amount - before.get(what, NOTHING)
        if what in ledger.hard and delta.value > 0:
            more[what] = delta
    over = [
        what
        for what, amount in sorted(more.items())
        if (ledger.used.get(what, NOTHING) + amount).value > ledger.hard[what].value
    ]
    if not over:
        return ""

    def shown(amounts: Amounts) -> str:
        return ",".join(f"{what}={amounts.get(what, NOTHING)}" for what in over)

    return (
        f"exceeded quota: {name}, requested: {shown(more)}, used: {shown(ledger.used)}, "
        f"limited: {shown(ledger.hard)}"
    )
