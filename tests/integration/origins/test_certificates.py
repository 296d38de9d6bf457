"""Certificates of stores that are no good, in time or by name: told apart for every kind."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.webstore import WebStore

from beamlit_operator.controllers.admission.certificates import (
    CERTIFICATE_LIFE,
    new_authority,
    new_certificate,
)
from beamlit_operator.origins import (
    HubRef,
    OriginError,
    OriginReason,
    OriginRef,
    S3Ref,
    WebFile,
    WebRef,
)
from beamlit_operator.origins.kinds import look

ADDRESS = "127.0.0.1"
KINDS: dict[str, Callable[[str], OriginRef]] = {
    "s3": lambda endpoint: S3Ref("models", "m", endpoint=endpoint),
    "hub": lambda endpoint: HubRef("org/m", endpoint=endpoint),
    # Registries are asked in the same way, but those of this machine without TLS.
    "web": lambda endpoint: WebRef((WebFile(f"{endpoint}/m.gguf", "ab" * 32),)),
}
DAY = timedelta(days=1)


class Wrong(NamedTuple):
    """A certificate that was made so long ago, for a name, and what is said of it."""

    age: timedelta
    name: str
    words: str


WRONG = {
    "ended": Wrong(CERTIFICATE_LIFE + 2 * DAY, ADDRESS, "has ended; have it renewed"),
    "of tomorrow": Wrong(-3 * DAY, ADDRESS, "not good yet; set the clock"),
    "of another": Wrong(DAY, "store.example.com", "for another name"),
}


@pytest.fixture(scope="module", params=WRONG)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WebStore, str, str]]:
    wrong = WRONG[request.param]
    made = datetime.now(UTC) - wrong.age
    authority = new_authority(min(made, datetime.now(UTC)))
    pair = new_certificate(authority, names=[wrong.name], now=made)
    chain: Path = tmp_path_factory.mktemp("tls") / "chain"
    chain.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    with WebStore(address=ADDRESS, context=context) as running:
        yield running, authority.certificate.decode(), wrong.words


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_a_certificate_is_said(
    store: tuple[WebStore, str, str], kind: str
) -> None:
    running, authority, words = store
    with pytest.raises(OriginError) as caught:
        look(KINDS[kind](running.endpoint), {"ca.crt": authority})
    assert caught.value.reason is OriginReason.UNREACHABLE
    assert words in caught.value.message
    assert not caught.value.stalled, "it is tried again, and mended by whoever renews it"
    assert not running.asked
