"""Keeps the webhook's certificate served, shared and trusted, and rotates it.

With certificates of the operator's own:

    Secret beamlit-webhook-tls ──► the listening socket (every replica)
                               ──► caBundle of the webhook configuration (that field only)

Whoever creates or changes the Secret first wins; the others get a conflict and read it. The
configuration belongs to whoever installed it (a chart, Git): only `caBundle` is applied, by a field
manager of its own, so that no owner of the rest sees a difference.

With a directory (cert-manager and the like), its files are followed and `caBundle` is theirs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from beamlit_operator.api import labels
from beamlit_operator.controllers.admission.certificates import Bundle, Pair, advanced, ends
from beamlit_operator.controllers.admission.configuration import CONFIGURATIONS
from beamlit_operator.controllers.admission.tlscontext import load
from beamlit_operator.kube import SECRETS, ApiError, Json, KubeClient

log = logging.getLogger(__name__)

SECRET = "beamlit-webhook-tls"  # noqa: S105 (the name of a Secret)
FIELD_MANAGER = "beamlit-operator-webhook"

ATTEMPTS = 5
"""Conflicts in a row that are answered at once; replicas that start together have a few."""


class Keeper(Protocol):
    """Whoever has the certificate."""

    interval: float
    """Seconds between two looks."""

    @property
    def ends(self) -> datetime | None:
        """When the certificate that was loaded ends; None before that."""
        ...

    async def look(self, context: ssl.SSLContext) -> None:
        """Loads the certificate into the context if it is another.

        Raises:
            ApiError: the API server did not answer as it should.
            OSError: a file cannot be read, or holds no certificate.
        """
        ...


class OwnCertificates:
    """Issued and rotated here, shared by the replicas in a Secret."""

    interval = 30.0

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        configuration: str,
        names: tuple[str, ...],
        clock: Callable[[], datetime],
    ) -> None:
        """``configuration`` is the name of the ValidatingWebhookConfiguration; ``names`` are what
        the API server may call the server by.
        """
        self._client = client
        self._namespace = namespace
        self._configuration = configuration
        self._names = names
        self._clock = clock
        self._bundle: Bundle | None = None
        self._loaded: Pair | None = None
        self._told = ""

    @property
    def ends(self) -> datetime | None:
        return ends(self._loaded)

    async def look(self, context: ssl.SSLContext) -> None:
        bundle = await self._shared()
        # Trusted first, so that the API server knows who signed what it is shown.
        try:
            await self._trust(bundle)
        except ApiError as error:
            self._tell(f"caBundle of {self._configuration} cannot be written: {error.message}")
        if bundle.serving != self._loaded:
            load(context, bundle.serving)
            self._loaded = bundle.serving
            log.info("the webhook serves a certificate for %s", ", ".join(self._names))
        self._bundle = bundle

    async def _shared(self) -> Bundle:
        """The bundle in the Secret, brought forward and stored if it is time to."""
        for _ in range(ATTEMPTS):
            try:
                secret = await self._client.get(SECRETS, SECRET, self._namespace)
            except ApiError as error:
                if not error.not_found:
                    raise
                secret = None
            # Of a Secret that somebody deleted, we hold what is served and trusted.
            found = self._bundle if secret is None else read(secret)
            bundle = advanced(found, names=self._names, now=self._clock())
            if secret is not None and bundle is found:
                return bundle
            try:
                await self._store(secret, bundle)
            except ApiError as error:
                if not (error.conflict or error.not_found):
                    raise
                continue
            return bundle
        raise ApiError(409, "Conflict", f"Secret {SECRET} changes all the time")

    async def _store(self, secret: Json | None, bundle: Bundle) -> None:
        if secret is None:
            await self._client.create(SECRETS, fresh(bundle, self._namespace), self._namespace)
        else:
            # The resourceVersion travels along: who comes second gets a conflict.
            await self._client.update(SECRETS, {**secret, "data": written(bundle)})

    async def _trust(self, bundle: Bundle) -> None:
        """Writes the authorities into the webhook configuration, if there is one."""
        try:
            live = await self._client.get(CONFIGURATIONS, self._configuration)
        except ApiError as error:
            if not error.not_found:
                raise
            self._tell(
                f"ValidatingWebhookConfiguration {self._configuration} does not exist: nothing "
                f"calls the webhook until it does"
            )
            return
        wanted = base64.b64encode(bundle.trusted).decode()
        hooks = live.get("webhooks") or ()
        if any((each.get("clientConfig") or {}).get("caBundle") != wanted for each in hooks):
            body = {
                "apiVersion": CONFIGURATIONS.api_version,
                "kind": CONFIGURATIONS.kind,
                # The uid, so that one that was deleted meanwhile is not made anew from this.
                "metadata": {"name": self._configuration, "uid": live["metadata"].get("uid")},
                "webhooks": [
                    {"name": each["name"], "clientConfig": {"caBundle": wanted}} for each in hooks
                ],
            }
            # Not by force: an owner of the field that is not us knows why.
            await self._client.apply(CONFIGURATIONS, body, field_manager=FIELD_MANAGER, force=False)
        self._told = ""

    def _tell(self, text: str) -> None:
        """Logs a state once, not every time it is found again."""
        if text != self._told:
            log.warning("%s", text)
        self._told = text


class DirectoryCertificates:
    """Issued by somebody else: ``tls.crt`` and ``tls.key`` in a directory, read when they change.

    The kubelet replaces the files of a mounted Secret in one step, but others may not: while the
    two do not belong together, what was loaded before stays.
    """

    interval = 10.0

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loaded: Pair | None = None

    @property
    def ends(self) -> datetime | None:
        return ends(self._loaded)

    async def look(self, context: ssl.SSLContext) -> None:
        found = await asyncio.to_thread(self._read)
        if found != self._loaded:
            load(context, found)
            self._loaded = found
            log.info("the webhook serves the certificate in %s", self._directory)

    def _read(self) -> Pair:
        folder = self._directory
        return Pair((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes())


_PARTS = ("ca.crt", "ca.key", "tls.crt", "tls.key")


def read(secret: Json) -> Bundle | None:
    """The bundle in a Secret; None if there is none that can be read."""
    try:
        data = {
            name: base64.b64decode(value, validate=True)
            for name, value in (secret.get("data") or {}).items()
        }
        ca, ca_key, certificate, key = (data[name] for name in _PARTS)
    except (KeyError, binascii.Error, ValueError, TypeError):
        return None
    following = None
    if "next-ca.crt" in data and "next-ca.key" in data:
        following = Pair(data["next-ca.crt"], data["next-ca.key"])
    return Bundle(
        authority=Pair(ca, ca_key),
        serving=Pair(certificate, key),
        next=following,
        previous=data.get("previous-ca.crt"),
    )


def written(bundle: Bundle) -> dict[str, str]:
    """The bundle as a Secret's data."""
    data = {
        "ca.crt": bundle.authority.certificate,
        "ca.key": bundle.authority.key,
        "tls.crt": bundle.serving.certificate,
        "tls.key": bundle.serving.key,
    }
    if bundle.next is not None:
        data |= {"next-ca.crt": bundle.next.certificate, "next-ca.key": bundle.next.key}
    if bundle.previous is not None:
        data["previous-ca.crt"] = bundle.previous
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def fresh(bundle: Bundle, namespace: str) -> Json:
    """The Secret to create."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": SECRET,
            "namespace": namespace,
            "labels": {
                labels.NAME: labels.OPERATOR_NAME,
                labels.PART_OF: "beamlit",
                labels.MANAGED_BY: labels.OPERATOR_NAME,
            },
        },
        "data": written(bundle),
    }
