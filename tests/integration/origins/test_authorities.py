"""A store whose certificate one origin's own authorities signed: trusted there, nowhere else."""

from __future__ import annotations

import gc
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from beamlit_operator.cli.releasetest import store_application
from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate
from beamlit_operator.origins import OriginError, OriginReason, S3Ref, resolve
from beamlit_operator.origins.stores import trust

from .test_way_out import fetched


@pytest.fixture(scope="module")
def authority() -> bytes:
    return new_authority(datetime.now(UTC)).certificate


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[S3Ref, str]]:
    """A store behind TLS, and the certificate of who signed its own."""
    now = datetime.now(UTC)
    signer = new_authority(now)
    pair = new_certificate(signer, names=["127.0.0.1"], now=now)
    chain = tmp_path / "chain"
    chain.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    runner = web.AppRunner(store_application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    try:
        endpoint = f"https://127.0.0.1:{port}"
        yield S3Ref("helm-test", "model", endpoint=endpoint), signer.certificate.decode()
    finally:
        await runner.cleanup()


async def test_an_origin_is_read_with_the_authorities_that_it_names(
    store: tuple[S3Ref, str],
) -> None:
    ref, signer = store
    found = await resolve(ref, {trust.AUTHORITIES: f"# ours, see Größe\n{signer}\n"})
    assert found.files


async def test_the_next_origin_at_the_same_store_is_not_trusted_for_it(
    store: tuple[S3Ref, str], authority: bytes
) -> None:
    ref, signer = store
    await resolve(ref, {trust.AUTHORITIES: signer})
    for others in ({}, {trust.AUTHORITIES: authority.decode()}):
        with pytest.raises(OriginError) as caught:
            await resolve(ref, others)
        assert caught.value.reason is OriginReason.UNREACHABLE
        assert "caConfigMapRef" in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
async def test_what_is_no_certificate_is_said_to_be_none(text: str) -> None:
    ref = S3Ref("helm-test", "model", endpoint="https://127.0.0.1:1")
    with pytest.raises(OriginError) as caught:
        await resolve(ref, {trust.AUTHORITIES: text})
    assert caught.value.reason is OriginReason.INVALID_REFERENCE
    assert "no certificates as PEM" in caught.value.message


async def test_a_fetching_container_trusts_the_file_that_it_is_given(
    store: tuple[S3Ref, str], tmp_path: Path
) -> None:
    ref, signer = store
    (tmp_path / "ca.crt").write_text(signer)
    await fetched(
        tmp_path / "model",
        AWS_ENDPOINT_URL=str(ref.endpoint),
        BEAMLIT_ORIGIN_CA_FILE=str(tmp_path / "ca.crt"),
    )
    # What it needed on the disk is gone with it.
    assert not list(tmp_path.glob("*.pem"))


async def test_the_same_authorities_are_one_file_and_it_goes_with_its_last_user(
    authority: bytes,
) -> None:
    trust._bundle.cache_clear()
    known = {trust.AUTHORITIES: authority.decode()}
    first, second = trust.bundle(known), trust.bundle(known)
    assert first is not None
    assert first is second
    path = Path(first.path)
    own = authority.decode().strip().splitlines()[1]
    assert own in path.read_text()
    trust._bundle.cache_clear()
    gc.collect()
    assert path.exists()
    del first, second
    gc.collect()
    assert not path.exists()


async def test_a_context_trusts_the_origins_authorities_and_the_public_ones(
    authority: bytes,
) -> None:
    plain = trust.context({})
    own = trust.context({trust.AUTHORITIES: authority.decode()})
    assert plain is None
    assert own is not None
    names = [dict(part[0] for part in each["issuer"]) for each in own.get_ca_certs()]
    assert len(names) > 50
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert own.check_hostname
