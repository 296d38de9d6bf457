"""The public keys that tokens are signed with, fetched from those who issue them.

Envoy asks the agent for them, so that its own configuration never changes, and certificates of an
authority of one's own are the agent's matter. Keys seen last stay while an issuer is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp

from beamlit_operator.gateway.issuers import CLUSTER, Issuer
from beamlit_operator.kube import ApiError, Json

log = logging.getLogger(__name__)

REFRESH = 60.0
"""Seconds between two looks. An issuer shows a new key before it signs with it (OpenID Connect
Core, 10.1.1); who does not is trusted a minute later."""

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
LARGEST = 1 << 20
"""Bytes of a document that is read."""

DISCOVERY = "/.well-known/openid-configuration"
_TIMEOUT = aiohttp.ClientTimeout(total=10)

Documents = Callable[[str], Awaitable[Json]]
"""Fetches a JSON document of the API server by its path."""


class KeysError(Exception):
    """An issuer's documents cannot be used; the text says why."""


class SigningKeys:
    """Follows the keys of all issuers while :meth:`run` runs."""

    def __init__(self, issuers: tuple[Issuer, ...], *, documents: Documents | None) -> None:
        self._issuers = {f"oidc{i}": issuer for i, issuer in enumerate(issuers)}
        self._documents = documents
        self._sets: dict[str, str] = {}
        self.fetched = asyncio.Event()
        """Set once the cluster's own keys are there."""
        self.cluster_issuer = ""
        """The issuer of ServiceAccounts' tokens, as the API server says; empty until it did."""

    def get(self, name: str) -> str | None:
        """The key set of an issuer as JSON; None until it was fetched."""
        return self._sets.get(name)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._documents is not None:
                group.create_task(self._follow(CLUSTER, partial(self._of_cluster, self._documents)))
            for name, issuer in self._issuers.items():
                group.create_task(self._follow(name, partial(fetch_keys, issuer)))

    async def _follow(self, name: str, fetch: Callable[[], Awaitable[str]]) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                self._sets[name] = await fetch()
                if name == CLUSTER:
                    self.fetched.set()
                delay = FIRST_RETRY
                await asyncio.sleep(REFRESH)
            except (KeysError, ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                about = self._issuers[name].issuer if name in self._issuers else "the API server"
                log.warning("the keys of %s cannot be fetched: %s", about, error or "no answer")
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)

    async def _of_cluster(self, documents: Documents) -> str:
        found = await documents(DISCOVERY)
        keys = usable_keys(await documents("/openid/v1/jwks"))
        self.cluster_issuer = str(found.get("issuer") or "")
        return keys


async def fetch_keys(issuer: Issuer) -> str:
    """The key set of an OpenID Connect issuer.

    Raises:
        KeysError, aiohttp.ClientError, TimeoutError, OSError: it cannot be had.
    """
    trusted = ssl.create_default_context(cafile=issuer.ca_file or None)
    async with aiohttp.ClientSession(
        timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=trusted), trust_env=True
    ) as session:
        discovery = await _document(session, issuer.issuer.rstrip("/") + DISCOVERY)
        if discovery.get("issuer") != issuer.issuer:
            raise KeysError(f"it calls itself {discovery.get('issuer')!r}: configure that name")
        where = str(discovery.get("jwks_uri") or "")
        if not where.startswith(("https://", issuer.issuer.partition("://")[0] + "://")):
            raise KeysError("its jwks_uri is no https URL")
        return usable_keys(await _document(session, where))


async def _document(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    async with session.get(url) as response:
        if response.status != 200:
            raise KeysError(f"{url} answered {response.status}")
        content = await response.content.read(LARGEST)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise KeysError(f"{url} is not JSON") from error
    if not isinstance(found, dict):
        raise KeysError(f"{url} is not a JSON object")
    return found


def usable_keys(document: Mapping[str, Any]) -> str:
    """The keys of a set that Envoy knows how to check with. No symmetric ones: who checks with such
    a key could sign with it.

    Raises:
        KeysError: there is none.
    """
    listed = document.get("keys")
    keys = [key for key in (listed if isinstance(listed, list) else ()) if _usable(key)]
    if not keys:
        raise KeysError("its key set has no public key for signatures")
    return json.dumps({"keys": keys})


def _usable(key: object) -> bool:
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return False
    match key.get("kty"):
        case "RSA":
            return "n" in key and "e" in key
        case "EC":
            return key.get("crv") in ("P-256", "P-384", "P-521")
        case "OKP":
            return key.get("crv") == "Ed25519"
    return False
