"""No origin of any kind leads to the metadata of a cloud: not by a name, a redirect, an answer."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import close_session
from tests.support.hub import HubServer

from beamlit_operator.origins import (
    HubRef,
    OciRef,
    OriginError,
    OriginReason,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
    read,
    resolve,
)
from beamlit_operator.origins.kinds import look
from beamlit_operator.origins.stores import addresses, identity, s3_client

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-example"}
KINDS: dict[str, Callable[[str], OriginRef]] = {
    "s3": lambda place: S3Ref("models", "m", endpoint=f"http://{place}"),
    "s3-tls": lambda place: S3Ref("models", "m", endpoint=f"https://{place}"),
    "s3-virtual": lambda place: S3Ref(
        "models", "m", endpoint=f"http://{place}", addressing_style="virtual"
    ),
    "s3-versions": lambda place: S3Ref("models", "m", endpoint=f"http://{place}", versioned=True),
    "hub": lambda place: HubRef("org/m", endpoint=f"http://{place}"),
    "hub-tls": lambda place: HubRef("org/m", endpoint=f"https://{place}"),
    "web": lambda place: WebRef((WebFile(f"http://{place}/m.gguf", "ab" * 32),)),
    "web-tls": lambda place: WebRef((WebFile(f"https://{place}/m.gguf", "ab" * 32),)),
    "oci": lambda place: OciRef(place, "org/m", tag="1"),
}


_NOTHING = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Metadata:
    """Stands for a cloud's, at an address that origins may not lead to: keeps what it hears."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        self.heard = bytearray()
        self._listener = listener
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                # The other side hangs up before it says anything, unless this is a proxy.
                if part := connection.recv(2**16):
                    self.heard += part
                    connection.sendall(_NOTHING)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.2", 0)) as listener:
        monkeypatch.setattr(addresses, "_REFUSED", (ipaddress.ip_network("127.0.0.2/32"),))
        known = socket.getaddrinfo

        def found(host: Any, *rest: Any, **more: Any) -> Any:
            inside = isinstance(host, str) and host.endswith("metadata.example")
            return known("127.0.0.2" if inside else host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", found)
        close_session()
        running = Metadata(listener)
        yield running
        running.close()


def refused(ref: OriginRef, credentials: dict[str, str] | None = None) -> None:
    with pytest.raises(OriginError, match="link-local address or one of a cloud's own") as caught:
        look(ref, credentials or {})
    assert caught.value.reason is OriginReason.INVALID_REFERENCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.2", "metadata.example"])
def test_nothing_is_said_there(kind: str, host: str, metadata: Metadata) -> None:
    refused(KINDS[kind](f"{host}:{metadata.port}"))
    assert not metadata.heard


@pytest.mark.parametrize("host", ["127.0.0.2", "metadata.example"])
def test_neither_keys_nor_the_token_of_a_service_account_are(host: str, metadata: Metadata) -> None:
    place = f"http://{host}:{metadata.port}"
    refused(S3Ref("models", "m", endpoint=place), KEYS)
    token = {
        "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/models",
        "AWS_WEB_IDENTITY_TOKEN": "header.claims.signature",
        "AWS_ENDPOINT_URL_STS": place,
    }
    refused(S3Ref("models", "m", endpoint="http://127.0.0.1:1"), token)
    assert not metadata.heard


@pytest.mark.parametrize("host", ["127.0.0.2", "metadata.example"])
def test_a_hub_sends_nobody_there(host: str, hub: HubServer, metadata: Metadata) -> None:
    hub.add("org/m", {"weights.gguf": bytes(200_000)})
    ref = HubRef("org/m", endpoint=hub.endpoint)
    (file,) = look(ref, {}).files
    hub.content_network = f"http://{host}:{metadata.port}"
    with pytest.raises(OriginError, match="link-local address"):
        read(ref, {}, file, 0, 10)
    assert not metadata.heard


async def test_proxies_of_the_environment_may_be_anywhere(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the operator's own, and they connect; addresses in urls are seen all the same."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.2:{metadata.port}")
    monkeypatch.setenv("no_proxy", "")
    for kind in ("s3", "hub", "web"):
        metadata.heard.clear()
        with pytest.raises(OriginError) as caught:
            await resolve(KINDS[kind]("store.example"), {})
        assert "link-local" not in caught.value.message
        assert b"http://store.example/" in metadata.heard
        metadata.heard.clear()
        refused(KINDS[kind]("127.0.0.2"))
        assert not metadata.heard
    close_session()


def test_the_identity_of_the_node_is_asked_for_all_the_same(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_REFUSED", (ipaddress.ip_network("127.0.0.0/8"),))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s3_endpoint)
    monkeypatch.setattr(identity, "_of_node", None)
    s3_client._session.cache_clear()  # it reads the variable when it is made
    found = identity.node_credentials(s3_client._session(), place="s3://models/m")
    assert found.get_frozen_credentials().access_key == "test-key"
    refused(S3Ref("models", "m", endpoint=s3_endpoint), {"BEAMLIT_NODE_CREDENTIALS": "true"})
    monkeypatch.setattr(identity, "_of_node", None)
    s3_client._session.cache_clear()
