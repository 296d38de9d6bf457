"""kopf's part: it watches our four kinds and tells of every event. It decides and writes nothing.

Only `on.event` handlers are registered, hence no finalizers, no annotations and no progress on
users' objects. Handlers must not fail: kopf would swallow it. What they call only updates the
indexes, and that puts keys on our queue.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable, Collection
from typing import Any

import kopf
from kubernetes.aio import client, config

from beamlit_operator.api import labels
from beamlit_operator.controllers.keys import Kind
from beamlit_operator.controllers.settings import operator_settings
from beamlit_operator.kube import Json, ObjectKey

OnEvent = Callable[[Kind, ObjectKey, Json, bool], None]
"""Takes the kind, the key, the object as it is (or last was) and whether it is gone."""


def registry(on_event: OnEvent, *, kubeconfig: str | None) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return await connection(kubeconfig, **kwargs)

    def register(kind: Kind) -> None:
        @kopf.on.event(labels.GROUP, labels.VERSION, kind.resource.plural, registry=handlers)
        async def handle(event: kopf.RawEvent, **_: Any) -> None:
            item: Json = dict(event["object"])
            item.setdefault("apiVersion", kind.resource.api_version)
            item.setdefault("kind", kind.resource.kind)
            metadata = item["metadata"]
            key = ObjectKey(metadata.get("namespace", ""), metadata["name"])
            on_event(kind, key, item, event["type"] == "DELETED")

    for kind in Kind:
        register(kind)
    return handlers


async def connection(kubeconfig: str | None, **kwargs: Any) -> kopf.ConnectionInfo | None:
    """How kopf reaches the cluster: the same way as `kube.connect`.

    kopf asks again whenever the API server answers 401, so rotated tokens are picked up.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not path and host:
        found = kopf.login_with_service_account(**kwargs)
        if found is None:
            return None
        # kopf takes https://kubernetes.default.svc, which needs the cluster's DNS; our own client
        # takes the address, as clients do, and both must see the same.
        name = f"[{host}]" if ":" in host else host
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return dataclasses.replace(found, server=f"https://{name}:{port}")
    return await kubeconfig_connection(path or config.KUBE_CONFIG_DEFAULT_LOCATION)


async def kubeconfig_connection(path: str) -> kopf.ConnectionInfo:
    """Reads a kubeconfig with the official package, credential plugins and all.

    Raises:
        kopf.LoginError: it holds no usable configuration.
    """
    settings = client.Configuration()
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, client_configuration=settings
        )
    except config.ConfigException as error:
        raise kopf.LoginError(f"{path}: {error}") from error
    header = (settings.api_key or {}).get("BearerToken") or ""
    scheme, _, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=settings.host,
        ca_path=settings.ssl_ca_cert,
        insecure=not settings.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=settings.cert_file,
        private_key_path=settings.key_file,
    )


async def drive(
    on_event: OnEvent,
    *,
    kubeconfig: str | None,
    namespaces: Collection[str] = (),
    own_signals: Callable[[], None] | None = None,
) -> None:
    """Runs kopf until it ends (which is a failure) or this is cancelled.

    `kopf.operator` itself is not used: at its end it cancels every task of the loop that is
    younger than it, also those that are not its own. ``own_signals`` installs the process's signal
    handlers, after kopf has replaced them.

    Raises:
        RuntimeError: kopf ended.
    """
    loop = asyncio.get_running_loop()
    tasks = await kopf.spawn_tasks(
        registry=registry(on_event, kubeconfig=kubeconfig),
        settings=operator_settings(),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        standalone=True,
        # Without one kopf asks for the user's name, and the image's user has none. It is used for
        # peering only, which is off; who leads is decided by the Lease. Its type is a private name.
        identity="beamlit-operator",  # type: ignore[arg-type]
    )
    # Signals are the process's to handle; kopf has just put its own handlers in place.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
    if own_signals is not None:
        own_signals()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in done if not task.cancelled()]
        raise RuntimeError("kopf ended") from next((e for e in errors if e is not None), None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=3)
