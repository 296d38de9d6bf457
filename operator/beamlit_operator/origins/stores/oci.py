"""Models in OCI registries: ask for manifests, judge answers, read parts of blobs.

Only GET of manifests and blobs is used (OCI Distribution Spec 1.1), so that a right to pull is
enough. Digests are checked here and while blobs arrive: a registry, or what is between, cannot
exchange content.

| the registry asks for     | what it gets                                                       |
|---------------------------|--------------------------------------------------------------------|
| nothing                   | nothing                                                            |
| Basic                     | user name and password                                             |
| Bearer                    | a token of the realm it names, which gets user name and password   |
|                           | as with container engines, but never without TLS from a registry   |
|                           | with TLS                                                           |
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlencode, urlsplit

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import OriginFile, ResolvedOrigin, resolved
from beamlit_operator.origins.ociref import DOCKER_HUB, OciRef
from beamlit_operator.origins.stores.ocilayers import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Layer,
    chosen,
    layers,
    parsed,
)
from beamlit_operator.origins.stores.trust import AUTHORITIES
from beamlit_operator.origins.stores.web import PASSWORD, TOKEN, USERNAME, Client, read_part

DOCKER_CONFIG = ".dockerconfigjson"
"""The credentials: the content of a Secret of type `kubernetes.io/dockerconfigjson`, by its key."""

_DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_MAX_TOKEN_BYTES = 2**20
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Registry:
    """Asks a registry with the credentials for one repository. Safe to share between threads.

    It has the methods of :class:`.web.Client`, so that blobs are fetched as files are.
    """

    def __init__(self, ref: OciRef, credentials: Mapping[str, str]) -> None:
        self._ref = ref
        self._known = login(credentials.get(DOCKER_CONFIG, ""), ref)
        self._trusted = {key: credentials[key] for key in (AUTHORITIES,) if key in credentials}
        self._client = Client(ref.place, self._trusted)
        self._clients = [self._client]
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The answer to a request; a registry that asks who calls is told so.

        Raises:
            OriginError: it cannot be had.
        """
        client = self._client
        with client.ask(method, url, headers) as answer:
            if answer.status != 401:
                yield answer
                return
            challenge = str(answer.headers.get("WWW-Authenticate", ""))
        with self._let_in(client, challenge).ask(method, url, headers) as answer:
            yield answer

    def refused(self, answer: Any, url: str) -> OriginError:
        """What an answer other than 200 and 206 means for a person."""
        place, status = self._ref.place, int(answer.status)
        if status == 401 and self._known:
            return OriginError(
                OriginReason.CREDENTIALS_INVALID,
                f"{place}: the registry does not accept the credentials: correct the Secret",
            )
        if status in (401, 403):
            # Registries answer so for what is not there, too.
            advice = "allow the account to pull it" if self._known else "name a Secret to pull with"
            return OriginError(
                OriginReason.ACCESS_DENIED,
                f"{place} does not exist or may not be pulled: check the name, and {advice}",
            )
        if status == 404:
            return OriginError(
                OriginReason.NO_OBJECTS,
                f"{place} does not exist: correct repository, tag or digest",
            )
        return self._client.refused(answer, url)

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _let_in(self, refused: Client, challenge: str) -> Client:
        """A client that the registry lets in; made once for all threads that were refused."""
        with self._lock:
            if self._client is refused:
                # The old one's connections may still be in use by other threads.
                self._client = Client(
                    self._ref.place, {**self._credentials(challenge), **self._trusted}
                )
                self._clients.append(self._client)
            return self._client

    def _credentials(self, challenge: str) -> dict[str, str]:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return dict(self._known)
        if scheme.lower() != "bearer":
            return {}
        asked = {name.lower(): value for name, value in _CHALLENGE.findall(rest)}
        realm = asked.get("realm", "")
        parts = urlsplit(realm)
        unsafe = parts.scheme == "http" and self._ref.base_url.startswith("https:")
        if parts.scheme not in ("http", "https") or unsafe:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"{self._ref.place}: the registry names no usable realm for tokens",
            )
        query = {
            "service": asked.get("service", ""),
            "scope": asked.get("scope") or f"repository:{self._ref.repository}:pull",
        }
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        asking = Client(self._ref.place, {**self._known, **self._trusted})
        with contextlib.closing(asking), asking.ask("GET", url, {}) as answer:
            if answer.status != 200:
                raise self.refused(answer, url)
            body = answer.read(_MAX_TOKEN_BYTES)
        try:
            token = json.loads(body)
            return {TOKEN: str(token.get("token") or token["access_token"])}
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"{self._ref.place}: the registry's realm sends no token",
            ) from None


def look(ref: OciRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Reads the manifest: see :func:`beamlit_operator.origins.resolve.resolve`. The revision is its
    digest; of an index, the index's."""
    registry = Registry(ref, credentials)
    try:
        revision, content, media = _manifest(registry, ref, ref.digest or ref.tag)
        document = parsed(content, place=ref.place)
        if media in INDEX_TYPES or document.get("mediaType") in INDEX_TYPES:
            _, content, _ = _manifest(registry, ref, chosen(document, place=ref.place))
            document = parsed(content, place=ref.place)
    finally:
        registry.close()
    found = layers(document, folder=ref.folder, place=ref.place)
    if ref.mounted:
        return _mounted(ref, revision, found)
    # The same content twice is one file.
    unique = {(layer.path, layer.digest): layer for layer in found}
    return resolved(
        revision,
        [
            OriginFile(
                layer.path,
                layer.size,
                layer.digest,
                f"{ref.base_url}/blobs/{layer.digest}",
                packed=layer.folder if layer.packed else None,
            )
            for layer in unique.values()
        ],
        place=ref.place,
    )


def _mounted(ref: OciRef, revision: str, found: Sequence[Layer]) -> ResolvedOrigin:
    """An image that a kubelet mounts: what is in it is seen by pods only."""
    if not all(layer.packed for layer in found):
        raise OriginError(
            OriginReason.INVALID_REFERENCE,
            f"{ref.place} is an artifact, and kubelets mount images only: set mode to Fetch",
        )
    return ResolvedOrigin(revision, (), sum(layer.size for layer in found))


def login(config: str, ref: OciRef) -> dict[str, str]:
    """User name and password for a repository of the configuration of container engines.

    The longest of its keys that fits counts, as with a kubelet: a host, with ``*`` for one of its
    parts, and perhaps the beginning of the repository's name. Empty if none does.

    Raises:
        OriginError: ``CredentialsInvalid``, if it cannot be read.
    """
    if not config:
        return {}
    try:
        entries = json.loads(config)["auths"]
        fitting = [key for key in entries if _fits(key, ref)]
        if not fitting:
            return {}
        entry = entries[max(fitting, key=len)]
        name, password = entry.get("username"), entry.get("password")
        if entry.get("auth"):
            decoded = base64.b64decode(entry["auth"], validate=True).decode()
            name, _, password = decoded.partition(":")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the Secret for {ref.place} has no configuration of registries under {DOCKER_CONFIG}: "
            "create it with kubectl create secret docker-registry",
        ) from None
    return {USERNAME: str(name), PASSWORD: str(password or "")} if name else {}


def _fits(key: str, ref: OciRef) -> bool:
    if ref.registry == DOCKER_HUB and key in _DOCKER_HUB_KEYS:
        return True
    host, _, path = key.partition("://")[2].partition("/") if "://" in key else key.partition("/")
    own, pattern = ref.registry.split("."), host.split(".")
    if len(own) != len(pattern) or not all(map(fnmatchcase, own, pattern)):
        return False
    path = path.strip("/")
    # Docker's own keys end in the version of the API.
    return path in ("", "v1", "v2") or f"{ref.repository}/".startswith(f"{path}/")


def _manifest(registry: Registry, ref: OciRef, name: str) -> tuple[str, bytes, str]:
    """Digest, content and media type of a manifest or index."""
    url = f"{ref.base_url}/manifests/{name}"
    with registry.ask("GET", url, {"Accept": ", ".join(MANIFEST_TYPES + INDEX_TYPES)}) as answer:
        if answer.status != 200:
            raise registry.refused(answer, url)
        content = answer.read(MAX_MANIFEST_BYTES + 1)
        media = str(answer.headers.get("Content-Type", "")).partition(";")[0].strip()
    if len(content) > MAX_MANIFEST_BYTES:
        raise OriginError(
            OriginReason.TOO_MANY_FILES,
            f"{ref.place} has a manifest of more than {MAX_MANIFEST_BYTES // 2**20} MiB",
        )
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if name.startswith("sha256:") and digest != name:
        raise OriginError(
            OriginReason.CORRUPT,
            f"{ref.place}: the manifest that arrived is not {name}: check proxies between",
        )
    return digest, content, media


def read(
    ref: OciRef, credentials: Mapping[str, str], file: OriginFile, start: int, length: int
) -> bytes:
    """See :func:`beamlit_operator.origins.kinds.read`."""
    registry = Registry(ref, credentials)
    try:
        return read_part(registry, file, start, length)
    finally:
        registry.close()
