"""The webhook's certificates: an authority of the operator's own, and what it signs.

Pure but for the keys that are drawn: what is there and the time go in, what should be there comes
out. In this order, one step at a time:

| situation                                            | step                                      |
|------------------------------------------------------|-------------------------------------------|
| nothing, or nothing that can be read                 | a new authority and certificate           |
| a third of the authority's life is left, no next one | a next one; both are trusted              |
| the next one is trusted for :data:`OVERLAP`          | it signs from now on; both stay trusted   |
| a third of the certificate's life is left            | another certificate                       |
| the certificate lacks a name                         | another with that name too                |
| the authority before is expired                      | it is trusted no longer                   |

Nothing is signed by an authority that has not been in the API servers' trust for a while, and none
leaves it while a replica may still serve what it signed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(hours=24)
"""How long before it is made a certificate is valid: clocks differ."""

AUTHORITY_LIFE = timedelta(days=730)
CERTIFICATE_LIFE = timedelta(days=90)

OVERLAP = timedelta(hours=1)
"""How long a new authority is trusted before it signs anything that is served."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """All that the replicas share."""

    authority: Pair
    serving: Pair
    next: Pair | None = None
    """The authority that will sign, once it is trusted everywhere."""
    previous: bytes | None = None
    """The certificate of the authority that signed before."""

    @property
    def trusted(self) -> bytes:
        """What the API server has to trust, as PEM."""
        parts = [self.authority.certificate]
        parts += [self.next.certificate] if self.next else []
        parts += [self.previous] if self.previous else []
        return b"".join(parts)


def advanced(bundle: Bundle | None, *, names: Iterable[str], now: datetime) -> Bundle:
    """The bundle as it should be now; the same object if nothing is to be done.

    Args:
        bundle: what is there; None if there is none.
        names: DNS names and addresses that the server is reached by.
        now: the time.
    """
    wanted = tuple(dict.fromkeys(names))
    if bundle is None or not _usable(bundle, now):
        authority = new_authority(now)
        return Bundle(authority, new_certificate(authority, names=wanted, now=now))
    if bundle.next is not None and _made(bundle.next.certificate) + OVERLAP <= now:
        kept = (*_names(bundle.serving.certificate), *wanted)
        return Bundle(
            authority=bundle.next,
            serving=new_certificate(bundle.next, names=dict.fromkeys(kept), now=now),
            previous=bundle.authority.certificate,
        )
    if bundle.next is None and _is_old(bundle.authority.certificate, now):
        bundle = replace(bundle, next=new_authority(now))
    known = _names(bundle.serving.certificate)
    if _is_old(bundle.serving.certificate, now) or not set(wanted) <= set(known):
        # Replicas of two versions may want different names: none takes away the other's.
        kept = tuple(dict.fromkeys((*known, *wanted)))
        bundle = replace(bundle, serving=new_certificate(bundle.authority, names=kept, now=now))
    if bundle.previous is not None and _read(bundle.previous).not_valid_after_utc <= now:
        bundle = replace(bundle, previous=None)
    return bundle


def new_authority(now: datetime) -> Pair:
    """A certificate authority for nothing but this webhook."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own each: a verifier that knows two looks for the issuer by name.
    name = _name(f"beamlit-webhook-ca-{now:%Y%m%d%H%M%S}")
    certificate = (
        _builder(name, name, key.public_key(), now=now, life=AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def new_certificate(authority: Pair, *, names: Iterable[str], now: datetime) -> Pair:
    """A server's certificate for DNS names and addresses."""
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = _read(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    # Never beyond its authority's end.
    life = min(CERTIFICATE_LIFE, issuer.not_valid_after_utc - now)
    certificate = (
        _builder(_name("beamlit-webhook"), issuer.subject, key.public_key(), now=now, life=life)
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return _pair(certificate, key)


def is_pair(pair: Pair) -> bool:
    """Whether both can be read and belong together."""
    try:
        key = serialization.load_pem_private_key(pair.key, None)
        return _read(pair.certificate).public_key() == key.public_key()
    except (ValueError, TypeError):
        return False


def ends(pair: Pair | None) -> datetime | None:
    """When a certificate ends; None without one."""
    return _read(pair.certificate).not_valid_after_utc if pair is not None else None


def _usable(bundle: Bundle, now: datetime) -> bool:
    """Whether it can be gone on from: readable, and the authority can still sign.

    Somebody else may have written the Secret, with keys of another kind or a certificate for no
    name: that is made anew, too.
    """
    signers = [bundle.authority, *([bundle.next] if bundle.next else [])]
    try:
        if not all(is_pair(pair) for pair in (*signers, bundle.serving)):
            return False
        if not all(_signs(pair) for pair in signers):
            return False
        _names(bundle.serving.certificate)
        authority = _read(bundle.authority.certificate)
        _read(bundle.serving.certificate).verify_directly_issued_by(authority)
        if bundle.previous is not None:
            _read(bundle.previous)
    except Exception:
        return False
    return authority.not_valid_after_utc > now


def _signs(pair: Pair) -> bool:
    key = serialization.load_pem_private_key(pair.key, None)
    return isinstance(key, ec.EllipticCurvePrivateKey)


def _is_old(certificate: bytes, now: datetime) -> bool:
    """Whether less than a third of its life is left."""
    read = _read(certificate)
    left = read.not_valid_after_utc - now
    return left < (read.not_valid_after_utc - read.not_valid_before_utc - BACKDATED) / 3


def _made(certificate: bytes) -> datetime:
    return _read(certificate).not_valid_before_utc + BACKDATED


def _names(certificate: bytes) -> tuple[str, ...]:
    found = _read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = found.get_values_for_type(x509.DNSName)
    return (*dns, *(str(each) for each in found.get_values_for_type(x509.IPAddress)))


def _read(certificate: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(pem), private)
