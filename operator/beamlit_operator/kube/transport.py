"""Requests to one API server: the official package's configuration on a bare aiohttp session.

The official package reads kubeconfigs, keeps tokens fresh and makes the TLS context. Its own way of
sending a request walks through the whole body to look for models, and has aiohttp read the
environment and `~/.netrc` on a thread each time: more than half of what a request costs. So proxies
are looked up once here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

if TYPE_CHECKING:
    from kubernetes.aio import client as k8s

READ_BUFFER = 2**21
"""Bytes of a stream that are read ahead; one event of a watch can be large."""


before_sending: ContextVar[Callable[[], None] | None] = ContextVar("before_sending", default=None)
"""Called when a request has its connection and before its first byte leaves; may raise to stop it.
Getting a connection can take any time, and what was true before it need not be afterwards."""


async def _ask_before_sending(*_: object) -> None:
    ask = before_sending.get()
    if ask is not None:
        ask()


def _traces() -> aiohttp.TraceConfig:
    traces = aiohttp.TraceConfig()
    # Despite its name, aiohttp sends this signal before it writes the headers.
    traces.on_request_headers_sent.append(_ask_before_sending)
    return traces


class Transport:
    """One pool of connections. Use on one event loop."""

    def __init__(self, api: k8s.ApiClient) -> None:
        self._configuration = api.configuration
        self._tls = api.rest_client.ssl_context
        self._headers: Mapping[str, str] = dict(api.default_headers)
        self._host = str(api.configuration.host)
        self._proxy: str | None = api.configuration.proxy
        self._proxy_headers: Mapping[str, str] | None = api.configuration.proxy_headers
        if not self._proxy:
            self._proxy, self._proxy_headers = proxy_for(self._host)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> aiohttp.ClientResponse:
        """Sends one request; returns the unread response, whatever its status.

        Raises:
            TimeoutError, aiohttp.ClientError, OSError: there is none.
        """
        url = f"{self._host}{path}?{urlencode(query)}" if query else f"{self._host}{path}"
        # Asked each time: the package renews a token here that is about to expire.
        settings = await self._configuration.auth_settings()
        token = settings.get("BearerToken", {}).get("value")
        sent = {**headers, **self._headers}
        if token:
            sent["Authorization"] = token
        return await self._pool().request(
            method,
            url,
            headers=sent,
            data=body,
            timeout=aiohttp.ClientTimeout(total=timeout),
            proxy=self._proxy,
            proxy_headers=self._proxy_headers,
            server_hostname=self._configuration.tls_server_name or None,
        )

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self._tls, limit=self._configuration.connection_pool_maxsize
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                read_bufsize=READ_BUFFER,
                trace_configs=[_traces()],
            )
        return self._session


def proxy_for(url: str) -> tuple[str | None, Mapping[str, str] | None]:
    """The proxy that the environment names for a URL, and the headers that it asks for.

    Only proxies over plain HTTP, as aiohttp has it.
    """
    parts = urlsplit(url)
    found = getproxies().get(parts.scheme)
    if not found or not parts.hostname or proxy_bypass(parts.hostname):
        return None, None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http":
        return None, None
    user, at, address = proxy.netloc.rpartition("@")
    if not at:
        return proxy.geturl(), None
    name, _, password = user.partition(":")
    login = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {login}"}
    return urlunsplit(proxy._replace(netloc=address)), headers
