"""API keys: what a caller holds, and what the cluster keeps of it. Pure.

A key is ``blk_<id>_<secret>``. The cluster keeps, in the workspace's Secret ``beamlit-api-keys``,
one entry for each key under its id: a JSON document with the SHA-256 of the secret and what the key
is good for. 256 random bits need no slow hash: nobody can try them all.

One Secret of a fixed name for each workspace, so that the gateway's role can be held to exactly
these: RBAC knows names, and no labels.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SECRET_NAME = "beamlit-api-keys"  # noqa: S105
PREFIX = "blk_"

_KEY = re.compile(r"blk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{16}")

MOST_KEYS = 2000
"""Keys of one workspace that are looked at: a Secret of Kubernetes has room for some 4,000."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the cluster keeps of a key. Without ``deployments`` it is good for all of its
    workspace; ``expires`` is when it ends, if it does."""

    id: str
    name: str
    sha256: str
    deployments: tuple[str, ...] | None
    expires: datetime | None
    created: str = ""

    def document(self) -> str:
        """As it is kept."""
        found: dict[str, object] = {"name": self.name, "sha256": self.sha256}
        if self.deployments is not None:
            found["deployments"] = list(self.deployments)
        if self.expires is not None:
            found["expires"] = self.expires.isoformat().replace("+00:00", "Z")
        if self.created:
            found["created"] = self.created
        return json.dumps(found)

    def covers(self, deployment: str) -> bool:
        """Whether it is good for this deployment of its workspace."""
        return self.deployments is None or deployment in self.deployments


def key_text(id: str, secret: str) -> str:
    """What the caller gets, once. ``secret`` is 256 random bits as URL-safe Base64."""
    return f"{PREFIX}{id}_{secret}"


def split_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key; None if it is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest(secret: str) -> str:
    """What is kept of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def fits(key: ApiKey | None, secret: str) -> bool:
    """Whether it is this key's secret; takes the same time if there is no key."""
    kept = key.sha256 if key is not None else "0" * 64
    return hmac.compare_digest(kept, digest(secret)) and key is not None


def parse_keys(data: Mapping[str, Any]) -> dict[str, ApiKey]:
    """The keys of a Secret's data, decoded. What cannot be read is no key: an entry whose limits
    are not understood must not be without limits."""
    found = {}
    for id, document in sorted(data.items())[:MOST_KEYS]:
        key = _parse(id, document)
        if key is not None:
            found[id] = key
    return found


def _parse(id: str, document: object) -> ApiKey | None:
    try:
        entry = json.loads(str(document))
        sha256, deployments, expires = (
            entry["sha256"],
            entry.get("deployments"),
            entry.get("expires"),
        )
        until = None if expires is None else datetime.fromisoformat(expires)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = (
        _ID.fullmatch(id)
        and isinstance(sha256, str)
        and re.fullmatch("[0-9a-f]{64}", sha256)
        and (deployments is None or isinstance(deployments, list))
        and all(isinstance(name, str) for name in deployments or ())
        and (until is None or until.tzinfo is not None)
    )
    if not sound:
        return None
    return ApiKey(
        id=id,
        name=str(entry.get("name") or id),
        sha256=sha256,
        deployments=None if deployments is None else tuple(deployments),
        expires=until,
        created=str(entry.get("created") or ""),
    )
