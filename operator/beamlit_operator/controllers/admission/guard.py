"""Writes the placements down for the ValidatingAdmissionPolicy, in the operator's own namespace.

One ConfigMap for all, because a policy's parameters cannot be chosen by an object's label, and
because whoever may write ConfigMaps in a workspace must not be able to loosen its placement. Many
changes become one write; a steady cluster makes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from beamlit_operator.api import labels
from beamlit_operator.controllers.admission.picture import Picture
from beamlit_operator.controllers.admission.placements import LARGEST, Book
from beamlit_operator.controllers.plan import Plan
from beamlit_operator.kube import CONFIG_MAPS, DEPLOYMENTS, ApiError, Json, KubeClient, ObjectKey
from beamlit_operator.policy import effective_policy
from beamlit_operator.workloads.native import Settings

log = logging.getLogger(__name__)

NAME = "beamlit-placements"

SETTLE = 0.3
"""Seconds that changes are collected before they are written."""

CHECK = 30.0
"""Seconds after which it is looked whether what was written is still there."""

RETRY = 2.0


class Guard:
    """Keeps the ConfigMap. Only the leader has one."""

    def __init__(self, client: KubeClient, *, namespace: str, picture: Picture) -> None:
        self._client = client
        self._namespace = namespace
        self._picture = picture
        self._book = Book(catalogue=picture.settings.catalogue)
        self._changed = asyncio.Event()
        self._too_large = False

    def use(self, settings: Settings) -> None:
        """From now on judges by these settings; every deployment is to be noted anew."""
        self._picture = replace(self._picture, settings=settings)
        self._book.use(settings.catalogue)

    def note(self, key: ObjectKey, plan: Plan) -> None:
        """A ModelDeployment was brought to its plan, or is gone."""
        held = self._picture.indexes.deployments.get(key)
        if held is None:
            changed = self._book.forget(key)
        elif held.parsed is None:
            return
        else:
            policy = effective_policy(
                held.parsed,
                self._picture.environment(key.namespace, held.parsed.spec.environment),
                policies=self._picture.policies(key.namespace),
                catalogue=self._picture.settings.catalogue,
            )
            wanted = next((i for i in plan.apply if i["kind"] == DEPLOYMENTS.kind), None)
            changed = self._book.decided(key, policy, wanted)
        if changed:
            self._changed.set()

    async def load(self) -> None:
        """Takes up what is written already. To be awaited before the first plan."""
        while True:
            try:
                found = await self._live()
            except ApiError as error:
                log.warning("the placements cannot be read: %s", error)
                await asyncio.sleep(RETRY)
                continue
            self._book.load((found or {}).get("data") or {})
            for key in self._book.governed:
                if key not in self._picture.indexes.deployments:
                    self._book.forget(key)
            self._changed.set()
            return

    async def run(self) -> None:
        """Writes changes until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK):
                    await self._changed.wait()
            await asyncio.sleep(SETTLE)
            self._changed.clear()
            try:
                await self._store()
            except ApiError as error:
                log.warning("the placements cannot be written: %s", error)
                self._changed.set()
                await asyncio.sleep(RETRY)

    async def _store(self) -> None:
        data = self._book.data()
        large = sum(len(name) + len(value) for name, value in data.items()) > LARGEST
        if large:
            if not self._too_large:
                log.error("the placements of %d entries do not fit into a ConfigMap", len(data))
            self._too_large = True
            return
        self._too_large = False
        live = await self._live()
        if live is None:
            await self._client.create(CONFIG_MAPS, self._fresh(data), self._namespace)
        elif (live.get("data") or {}) != data:
            await self._client.update(CONFIG_MAPS, {**live, "data": data})

    async def _live(self) -> Json | None:
        try:
            return await self._client.get(CONFIG_MAPS, NAME, self._namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def _fresh(self, data: dict[str, str]) -> Json:
        marks = {labels.NAME: labels.OPERATOR_NAME, labels.PART_OF: "beamlit"}
        metadata = {"name": NAME, "namespace": self._namespace, "labels": marks}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
