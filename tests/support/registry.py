"""A container registry, real and local: what of the OCI Distribution Spec 1.1 a pull needs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.support.webstore import WebStore

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FILE = "application/octet-stream"


@dataclass
class Registry(WebStore):
    """Blobs behave as a web store's files do; manifests are beside them.

    Attributes:
        manifests: ``repository:tag`` and ``repository@digest``: media type and content.
        scheme: what it asks callers for: nothing, ``Basic`` or ``Bearer``.
        accounts: user names and passwords it knows.
        realm: where it sends callers for a token; its own when empty.
        tokens_for: who was given a token, in order; None for nobody in particular.
        token: what it gives and takes.
    """

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    scheme: str = ""
    accounts: dict[str, str] = field(default_factory=dict)
    realm: str = ""
    tokens_for: list[str | None] = field(default_factory=list)
    token: str = "pulling"

    @property
    def host(self) -> str:
        """As references name it."""
        return self.endpoint.removeprefix("http://")

    def blob(self, repository: str, content: bytes) -> str:
        """Keeps a blob and returns its digest."""
        found = digest(content)
        self.files[f"v2/{repository}/blobs/{found}"] = content
        return found

    def push(self, repository: str, tag: str, layers: list[dict[str, Any]]) -> str:
        """Keeps a manifest with these layers and returns its digest."""
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {**config, "digest": self.blob(repository, b"{}")},
            "layers": layers,
        }
        return self.keep(repository, tag, MANIFEST, document)

    def push_index(self, repository: str, tag: str, manifests: list[dict[str, Any]]) -> str:
        """Keeps an index and returns its digest."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.keep(repository, tag, INDEX, document)

    def keep(self, repository: str, tag: str, media: str, document: object) -> str:
        """Keeps any document as a manifest and returns its digest."""
        content = json.dumps(document).encode()
        self.manifests[f"{repository}:{tag}"] = (media, content)
        self.manifests[f"{repository}@{digest(content)}"] = (media, content)
        return digest(content)

    def layer(
        self,
        repository: str,
        content: bytes,
        media: str = FILE,
        annotations: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """A layer's descriptor, its blob kept."""
        found = self.blob(repository, content)
        notes = {"annotations": dict(annotations)} if annotations else {}
        return {"mediaType": media, "digest": found, "size": len(content), **notes}

    def artifact(self, repository: str, tag: str, files: Mapping[str, bytes]) -> str:
        """Pushes files as ORAS does and returns the manifest's digest."""
        title = "org.opencontainers.image.title"
        layers = [self.layer(repository, data, FILE, {title: name}) for name, data in files.items()]
        return self.push(repository, tag, layers)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path == "token":
            return self._give_token(request)
        if (challenge := self._challenge(request)) is not None:
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        name, slash, reference = path.removeprefix("v2/").partition("/manifests/")
        if not slash:
            return await super()._answer(request)
        joint = "@" if reference.startswith("sha256:") else ":"
        found = self.manifests.get(f"{name}{joint}{reference}")
        if found is None:
            body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return web.json_response(body, status=404)
        return web.Response(body=found[1], headers={"Content-Type": found[0]})

    def _challenge(self, request: web.Request) -> str | None:
        sent = request.headers.get("Authorization", "")
        if not self.scheme:
            return None
        if self.scheme == "Basic":
            return None if self._account(sent) else 'Basic realm="registry"'
        if sent == f"Bearer {self.token}":
            return None
        realm = self.realm or f"{self.endpoint}/token"
        return f'Bearer realm="{realm}",service="registry",scope="repository:any:pull"'

    def _give_token(self, request: web.Request) -> web.Response:
        sent = request.headers.get("Authorization", "")
        account = self._account(sent)
        if (sent or self.accounts) and account is None:
            return web.Response(status=401)
        self.tokens_for.append(account)
        return web.json_response({"token": self.token})

    def _account(self, sent: str) -> str | None:
        scheme, _, value = sent.partition(" ")
        if scheme != "Basic":
            return None
        name, _, password = base64.b64decode(value).decode().partition(":")
        return name if self.accounts.get(name) == password else None


def digest(content: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def packed(files: Mapping[str, bytes | None], *, zipped: bool = True) -> bytes:
    """A tar archive, as a layer; None for a folder."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content or b"")
            entry.type = tarfile.REGTYPE if content is not None else tarfile.DIRTYPE
            archive.addfile(entry, io.BytesIO(content or b""))
    return gzip.compress(target.getvalue(), mtime=0) if zipped else target.getvalue()


def docker_config(host: str, name: str, password: str) -> str:
    """What `kubectl create secret docker-registry` writes."""
    auth = base64.b64encode(f"{name}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}})
