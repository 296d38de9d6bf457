"""The client for a real connection, on the official package's asyncio half.

The official package brings configuration, authentication and TLS. Its generated models are not
used: this project reads and writes plain dicts.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import aiohttp

from beamlit_operator.kube.client import ApiError, Json, ListResult, WatchEvent
from beamlit_operator.kube.resources import Resource
from beamlit_operator.kube.transport import Transport

if TYPE_CHECKING:
    # Half a second to import, which only those pay who connect.
    from kubernetes.aio import client as k8s

PAGE_SIZE = 100
"""Objects per LIST page. client-go's pager takes 500, which read by Python are 25 MiB; several
collections are listed at once when a process starts, and what that takes for a moment makes holes
in the heap that stay. With 100 an operator of 1,000 deployments is smaller by 24 MiB."""

REQUEST_TIMEOUT = 60.0
"""Seconds one request other than a watch may take, the API server's own default limit."""


STREAM_TIMEOUT = 86400.0
"""Seconds a watch may stay open."""


CLOCK_INTERVAL = 30.0
"""Seconds between two looks at the API server's clock."""


class HttpClient:
    """A :class:`~beamlit_operator.kube.client.KubeClient` over HTTP.

    Use as an async context manager, or call :meth:`close`.
    """

    def __init__(self, api: k8s.ApiClient) -> None:
        self._api = api
        self._transport = Transport(api)
        self.on_warning: Callable[[str], None] | None = None
        """Who is told what the API server warns of (the header ``Warning``), sentence by
        sentence."""
        self._looked_at_clock = float("-inf")
        self.clock_difference: float | None = None
        """Seconds by which this machine's clock is ahead of the API server's, as of an answer of
        the last minute; to within a second, since its ``Date`` has whole ones. None: unknown."""

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()
        await self._api.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> aiohttp.ClientResponse:
        """Sends one request and returns the unread response of a success.

        ``path`` starts with a slash; ``timeout`` is in seconds, ``None`` for a stream.

        Raises:
            ApiError: the server refused, or could not be reached (status 0).
        """
        try:
            response = await self._transport.send(
                method,
                path,
                query=query,
                headers={"Accept": accept, "Content-Type": content_type},
                body=None if body is None else _encoded(body),
                timeout=timeout or STREAM_TIMEOUT,
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(
                0, "Unreachable", f"{method} {path}: {error or type(error).__name__}"
            ) from error
        self._look_at_clock(response.headers)
        if response.status >= 300:
            raise _error_from(response.status, await response.read(), response.headers)
        if self.on_warning is not None:
            for text in response.headers.getall("Warning", ()):
                self.on_warning(_warning(text))
        return response

    def _look_at_clock(self, headers: Mapping[str, str]) -> None:
        if time.monotonic() - self._looked_at_clock < CLOCK_INTERVAL or "Date" not in headers:
            return
        self._looked_at_clock = time.monotonic()
        try:
            told = parsedate_to_datetime(headers["Date"]).timestamp()
        except ValueError:
            return
        # It was cut to whole seconds: half a second later is the best guess.
        self.clock_difference = time.time() - told - 0.5

    async def _json(self, method: str, path: str, **kwargs: Any) -> Json:
        response = await self.request(method, path, **kwargs)
        try:
            return cast("Json", json.loads(await response.read()))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from error

    async def document(self, path: str) -> Json:
        """A JSON document of the API server that is no object, such as its signing keys."""
        # Some have a type of their own, such as application/jwk-set+json.
        return await self._json("GET", path, accept="*/*")

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Json:
        return await self._json("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        each: Callable[[Json], Json] | None = None,
    ) -> ListResult:
        query: dict[str, str | int] = {"limit": PAGE_SIZE}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        items: list[Json] = []
        while True:
            page = await self._json("GET", resource.path(namespace), query=query)
            for item in page.get("items") or ():
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                items.append(each(item) if each is not None else item)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return ListResult(items, metadata.get("resourceVersion", ""))
            query["continue"] = token

    async def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        namespace = namespace or body.get("metadata", {}).get("namespace")
        return await self._json(
            "POST",
            resource.path(namespace, name, subresource),
            body=body,
            query=_options(field_manager, dry_run=dry_run),
        )

    async def update(
        self, resource: Resource, body: Json, *, subresource: str | None = None
    ) -> Json:
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._json("PUT", path, body=body)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        body: Json,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        return await self._json(
            "PATCH",
            resource.path(namespace, name, subresource),
            body=body,
            query=_options(field_manager, dry_run=dry_run),
            content_type="application/merge-patch+json",
        )

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
    ) -> Json:
        metadata = body["metadata"]
        return await self._json(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"], subresource),
            body=body,
            query={"fieldManager": field_manager, "force": "true" if force else "false"},
            content_type="application/apply-patch+yaml",
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation:
            options["propagationPolicy"] = propagation
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        response = await self.request("DELETE", resource.path(namespace, name), body=options)
        await response.read()

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> AsyncIterator[WatchEvent]:
        query: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": timeout_seconds,
        }
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        response = await self.request("GET", resource.path(namespace), query=query, timeout=None)
        buffer = b""
        try:
            # Lines are split by hand: the stream's own readline refuses long ones.
            while chunk := await _next_chunk(response, timeout_seconds + 30):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _watch_event(json.loads(line))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(
                0, "Unreachable", f"watch of {resource.plural}: {error or type(error).__name__}"
            ) from error
        finally:
            _break_off(response)


def _options(field_manager: str | None, *, dry_run: bool) -> dict[str, str | int]:
    """The query of a write. With ``dry_run`` all is checked and nothing is stored."""
    query: dict[str, str | int] = {"fieldManager": field_manager} if field_manager else {}
    return {**query, "dryRun": "All"} if dry_run else query


def _warning(header: str) -> str:
    """The sentence of ``299 - "sentence"`` (RFC 7234 section 5.5, as Kubernetes sends it)."""
    text = header.partition('"')[2].rpartition('"')[0]
    return text.replace('\\"', '"').replace("\\\\", "\\") or header


def _encoded(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _break_off(response: aiohttp.ClientResponse) -> None:
    """Closes at once, if the server has not: its farewell may take long, or never come."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


async def _next_chunk(response: aiohttp.ClientResponse, timeout: float) -> bytes:
    """The next bytes of the stream, empty at its end.

    The server ends a watch at its own timeout; a connection that stays silent well past that is
    dead.
    """
    return await asyncio.wait_for(response.content.readany(), timeout)


def _watch_event(document: Json) -> WatchEvent:
    if document.get("type") == "ERROR":
        status = document.get("object") or {}
        raise ApiError(
            int(status.get("code") or 500),
            str(status.get("reason") or "Unknown"),
            str(status.get("message") or "the watch ended with an error"),
        )
    return WatchEvent(document["type"], document["object"])


def _error_from(code: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    retry_after = headers.get("Retry-After", "")
    return ApiError(
        code,
        str(status.get("reason") or ""),
        str(status.get("message") or body[:500].decode(errors="replace")),
        details=status.get("details"),
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )


async def connect(kubeconfig: str | os.PathLike[str] | None = None) -> HttpClient:
    """Connects to a cluster as ``kubectl`` would.

    Reads ``kubeconfig`` when given, else ``$KUBECONFIG`` or the default file when it exists, else
    the service account of the pod this runs in.

    Raises:
        kubernetes.aio.config.ConfigException: no usable configuration was found.
    """
    from kubernetes.aio import client as k8s
    from kubernetes.aio import config as k8s_config

    configuration = k8s.Configuration()
    path = os.fspath(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
    if path or _default_kubeconfig_exists():
        await k8s_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, client_configuration=configuration
        )
    else:
        k8s_config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    return HttpClient(k8s.ApiClient(configuration))


def _default_kubeconfig_exists() -> bool:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return False
    from kubernetes.aio import config as k8s_config

    return Path(k8s_config.KUBE_CONFIG_DEFAULT_LOCATION).expanduser().exists()
