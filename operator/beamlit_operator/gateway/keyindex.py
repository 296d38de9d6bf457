"""The API keys of all workspaces, by their id, as the cluster has them."""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from typing import Any

from beamlit_operator.api.apikey import SECRET_NAME, ApiKey, parse_keys
from beamlit_operator.kube import SECRETS, Change, KubeClient, Reflector

HEARD_WITHIN = 330.0
"""Seconds after which a watch that works has heard something, at the latest."""


class KeyIndex:
    """Follows the Secrets of the one name while :meth:`run` runs. Nothing of others is read: the
    gateway's role allows that name only. For ``stale`` seconds it is good without an API server."""

    def __init__(self, client: KubeClient, *, stale: float) -> None:
        self._stale = stale
        self._reflector = Reflector(
            client,
            SECRETS,
            field_selector=f"metadata.name={SECRET_NAME}",
            on_change=self._changed,
        )
        self._by_id: dict[str, dict[str, ApiKey]] = defaultdict(dict)

    @property
    def reflector(self) -> Reflector:
        """What follows the Secrets."""
        return self._reflector

    @property
    def good(self) -> bool:
        """Whether the Secrets were read, and not too long ago."""
        return self._reflector.silent < HEARD_WITHIN + self._stale

    async def run(self) -> None:
        """Until cancelled."""
        await self._reflector.run()

    def find(self, id: str) -> list[tuple[str, ApiKey | None]]:
        """The workspaces that have a key of this id, and the key."""
        return list(self._by_id.get(id, {}).items())

    def _changed(self, change: Change) -> None:
        if change.key.name != SECRET_NAME:
            return
        workspace = change.key.namespace
        for id in parse_keys(_data(change.old)):
            self._by_id[id].pop(workspace, None)
            if not self._by_id[id]:
                del self._by_id[id]
        for id, key in parse_keys(_data(change.new)).items():
            self._by_id[id][workspace] = key


def _data(secret: dict[str, Any] | None) -> dict[str, str]:
    found = {}
    for name, value in ((secret or {}).get("data") or {}).items():
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError):
            continue
    return found
