"""TLS at the gateway's own listener."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.integration.gateway.conftest import (
    ModelServer,
    free_port,
    gateway_settings,
    running_gateway,
    until,
)
from tests.support.fakekube import FakeKube

from beamlit_operator.gateway.settings import Address


def write_certificate(folder: Path, generation: str) -> str:
    """Puts a new certificate in place as the kubelet does: a link to another folder is swapped.
    What the certificate calls itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, generation)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    real = folder / f"..{generation}"
    real.mkdir(parents=True)
    pem = serialization.Encoding.PEM
    (real / "tls.crt").write_bytes(certificate.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (real / "tls.key").write_bytes(key.private_bytes(pem, *private))
    for file in ("tls.crt", "tls.key"):
        if not (folder / file).is_symlink():
            (folder / file).symlink_to(f"..data/{file}")
    new = folder / "..data_tmp"
    new.symlink_to(real.name)
    new.replace(folder / "..data")
    return generation


def trusting(**options: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


async def shown(address: Address) -> str:
    """The name in the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=trusting())
    encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    found = x509.load_der_x509_certificate(encoded)
    return str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


async def test_callers_come_in_with_tls_and_a_renewed_certificate_counts_at_once(
    kube: FakeKube, server: ModelServer, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    write_certificate(folder, "first")
    address = Address("127.0.0.1", free_port())
    settings = gateway_settings(
        runtime_dir=tmp_path,
        tls_listen=address,
        tls_certificate=str(folder / "tls.crt"),
        tls_key=str(folder / "tls.key"),
    )
    async with running_gateway(kube, settings) as gateway:
        await gateway.cluster.deploy("iris")
        await gateway.cluster.ready("iris-production-1", server)
        await gateway.routed()

        async def encrypted(path: str = "/demo/models/iris") -> dict[str, dict[str, str]]:
            url = f"https://{address}{path}"
            async with gateway.http.get(url, ssl=trusting()) as answer:
                assert answer.status == 200
                return await answer.json()  # type: ignore[no-any-return]

        assert (await encrypted())["headers"]["x-forwarded-proto"] == "https"
        assert await shown(address) == "first"

        # A request that is under way stays when the certificate changes.
        waiting = asyncio.create_task(encrypted("/demo/models/iris?wait"))
        await until(lambda: server.running == 1, what="the request is at the model")
        write_certificate(folder, "second")

        async def renewed() -> bool:
            return await shown(address) == "second"

        await until(renewed, what="the new certificate is shown")
        server.release.set()
        assert (await waiting)["headers"]["x-forwarded-proto"] == "https"
        assert (await gateway.get("/demo/models/iris"))[0] == 200


async def test_old_versions_are_refused_and_http_2_is_offered(
    kube: FakeKube, tmp_path: Path
) -> None:
    write_certificate(tmp_path / "tls", "only")
    address = Address("127.0.0.1", free_port())
    settings = gateway_settings(
        runtime_dir=tmp_path,
        tls_listen=address,
        tls_certificate=str(tmp_path / "tls" / "tls.crt"),
        tls_key=str(tmp_path / "tls" / "tls.key"),
    )
    async with running_gateway(kube, settings):
        context = trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        connection = writer.get_extra_info("ssl_object")
        assert (connection.selected_alpn_protocol(), connection.version()) == ("h2", "TLSv1.3")
        writer.close()
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old = trusting(
                minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
            )
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match=r"(?i)version|alert|protocol"):
            await asyncio.open_connection(address.host, address.port, ssl=old)
