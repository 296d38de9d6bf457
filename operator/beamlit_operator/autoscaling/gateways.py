"""Asks the gateways for their load.

A URL stands for every address its host has: with a headless Service, one URL names all gateways.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from beamlit_operator.autoscaling.loads import GatewayLoad, LoadError, parse_load

_log = logging.getLogger(__name__)

_LARGEST_REPORT_BYTES = 16 * 2**20


class GatewayLoads:
    """The ``fetch_loads`` of an autoscaler.

    Args:
        urls: of the gateways' ``/load``.
        session: the caller's, who closes it.
        timeout_seconds: for one gateway's answer; below the tick, so that one that hangs delays
            nothing.
    """

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        *,
        timeout_seconds: float = 1.5,
    ) -> None:
        self._urls = tuple(urls)
        self._session = session
        self._timeout_seconds = timeout_seconds
        self._silent: set[str] = set()

    async def __call__(self) -> dict[str, GatewayLoad]:
        """The reports of the gateways that answer, by address. Never raises for those that do not.

        A gateway that falls silent is logged once, and once when it is back.
        """
        addresses = await asyncio.gather(*(self._addresses(url) for url in self._urls))
        places = sorted({place for some in addresses for place in some})
        loads = await asyncio.gather(*(self._ask(*place) for place in places))
        self._silent &= {address for address, _ in places} | set(self._urls)
        reports: dict[str, GatewayLoad] = {}
        seen: set[str] = set()
        for (address, _), load in zip(places, loads, strict=True):
            # One gateway may have two addresses, of which it must count once: localhost has.
            if load is not None and load.gateway not in seen:
                seen.add(load.gateway)
                reports[address] = load
        return reports

    async def _addresses(self, url: str) -> list[tuple[str, str]]:
        """Each address behind ``url``, as (URL with the address, the host and port asked for)."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            self._note_silence(url, error)
            return []
        self._note_answer(url)
        if parts.scheme == "https":  # a certificate names the host, not its addresses
            return [(url, parts.netloc)]
        hosts = {
            f"[{ip[0]}]" if family == socket.AF_INET6 else str(ip[0])
            for family, _, _, _, ip in found
        }
        return [
            (urlunsplit(parts._replace(netloc=f"{address}:{port}")), parts.netloc)
            for address in hosts
        ]

    async def _ask(self, url: str, host: str) -> GatewayLoad | None:
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        try:
            async with self._session.get(url, headers={"Host": host}, timeout=timeout) as answer:
                answer.raise_for_status()
                if (answer.content_length or 0) > _LARGEST_REPORT_BYTES:
                    raise LoadError(f"report of {answer.content_length} bytes")
                load = parse_load(await answer.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._note_silence(url, error)
            return None
        self._note_answer(url)
        return load

    def _note_silence(self, url: str, error: Exception) -> None:
        if url not in self._silent:
            self._silent.add(url)
            _log.info("gateway %s reports no load: %s: %s", url, type(error).__name__, error)

    def _note_answer(self, url: str) -> None:
        if url in self._silent:
            self._silent.discard(url)
            _log.info("gateway %s reports load again", url)
