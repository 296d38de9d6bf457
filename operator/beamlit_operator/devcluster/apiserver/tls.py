"""The server's identity: a certificate authority of its own, a certificate, a token."""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the certificate and key are, the authority in PEM, and the only user's token."""

    certificate: Path
    key: Path
    authority: bytes
    token: str

    def server_context(self) -> ssl.SSLContext:
        """For the listening socket."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context

    def write_kubeconfig(self, path: Path, server: str) -> None:
        """A kubeconfig for ``server`` (its URL), readable by its owner only."""
        authority = base64.b64encode(self.authority).decode()
        name = "beamlit-dev"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {"server": server, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def load_or_make(directory: Path) -> Identity:
    """The identity in ``directory``; a new one when there is none or it is about to expire."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {name: directory / name for name in ("ca.crt", "tls.crt", "tls.key", "token")}
    if not all(path.exists() for path in files.values()) or _expires_soon(files["tls.crt"]):
        _make(files)
    return Identity(
        certificate=files["tls.crt"],
        key=files["tls.key"],
        authority=files["ca.crt"].read_bytes(),
        token=files["token"].read_text().strip(),
    )


def _expires_soon(path: Path) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=7)


def _make(files: dict[str, Path]) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("beamlit-dev-ca")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    certificate = (
        _builder(_name("beamlit-dev"), authority_name, key.public_key())
        .add_extension(
            x509.SubjectAlternativeName(
                [*(x509.DNSName(n) for n in names), *(x509.IPAddress(a) for a in addresses)]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    write_private(files["ca.crt"], authority.public_bytes(pem))
    write_private(files["tls.crt"], certificate.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(files["tls.key"], private)
    write_private(files["token"], secrets.token_urlsafe(32).encode())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks of virtual machines run late after a pause.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` in one step; nobody else can ever read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    temporary.replace(path)
