"""When certificates are made anew, and that what is served is always trusted."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from beamlit_operator.controllers.admission.certificates import (
    AUTHORITY_LIFE,
    CERTIFICATE_LIFE,
    OVERLAP,
    Bundle,
    Pair,
    advanced,
    is_pair,
    new_certificate,
)
from beamlit_operator.controllers.admission.keeper import read, written
from beamlit_operator.controllers.admission.tlscontext import load, server_context

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
Signer = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NAMES = ("beamlit-webhook.beamlit-system.svc", "127.0.0.1")


def made(now: datetime = NOW) -> Bundle:
    return advanced(None, names=NAMES, now=now)


def at(bundle: Bundle, after: timedelta) -> Bundle:
    return advanced(bundle, names=NAMES, now=NOW + after)


def verified(bundle: Bundle) -> bool:
    """Whether one of the trusted authorities signed what is served."""
    serving = x509.load_pem_x509_certificate(bundle.serving.certificate)
    for authority in x509.load_pem_x509_certificates(bundle.trusted):
        if authority.subject == serving.issuer:
            serving.verify_directly_issued_by(authority)
            return True
    return False


def signed_by(key: Signer, *, names: tuple[str, ...]) -> Bundle:
    """A bundle that somebody else made: in order, but not as we make them."""
    certificates = []
    for subject, own, alternatives in (("ca", key, ()), ("tls", made_key := new_key(), names)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=20))
        )
        if alternatives:
            general = [x509.DNSName(alternatives[0])]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        certificates.append(pem)
    return Bundle(
        authority=Pair(certificates[0], private(key)),
        serving=Pair(certificates[1], private(made_key)),
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private(key: Signer) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_a_fresh_bundle_is_left_alone() -> None:
    bundle = made()
    assert at(bundle, timedelta(days=1)) is bundle
    assert is_pair(bundle.serving)
    assert verified(bundle)


def test_clocks_may_differ_by_a_day() -> None:
    serving = x509.load_pem_x509_certificate(made().serving.certificate)
    assert serving.not_valid_before_utc <= NOW - timedelta(hours=24)


def test_the_certificate_is_renewed_a_month_before_its_end() -> None:
    bundle = made()
    assert at(bundle, CERTIFICATE_LIFE * 0.6) is bundle
    renewed = at(bundle, CERTIFICATE_LIFE * 0.7)
    assert renewed.serving != bundle.serving
    assert renewed.authority == bundle.authority


def test_a_new_authority_is_trusted_before_it_signs_and_the_old_one_after() -> None:
    bundle = made()
    late = AUTHORITY_LIFE * 0.7
    announced = at(bundle, late)
    assert announced.next is not None
    assert announced.authority == bundle.authority
    assert announced.trusted.count(b"BEGIN") == 2
    assert verified(announced)
    same = at(announced, late + OVERLAP * 0.9)
    assert same is announced
    promoted = at(announced, late + OVERLAP)
    assert promoted.authority == announced.next
    assert promoted.previous == bundle.authority.certificate
    assert verified(promoted)
    settled = at(promoted, AUTHORITY_LIFE + timedelta(days=1))
    assert settled.previous is None


def test_over_ten_years_of_looks_what_is_served_is_always_trusted_by_the_bundle_before() -> None:
    bundle = made()
    authorities = set()
    for day in range(0, 3650, 5):
        following = at(bundle, timedelta(days=day))
        # An API server may still hold what was trusted at the look before.
        assert verified(replace(bundle, serving=following.serving)), day
        assert verified(following)
        bundle = following
        authorities.add(bundle.authority.certificate)
    assert len(authorities) >= 6


def test_a_certificate_keeps_the_names_that_replicas_of_another_version_need() -> None:
    bundle = made()
    more = advanced(bundle, names=("other.svc",), now=NOW)
    assert more.serving != bundle.serving
    assert advanced(more, names=NAMES, now=NOW) is more


@pytest.mark.parametrize(
    "broken",
    [
        lambda b: replace(b, serving=Pair(b"x", b"y")),
        lambda b: replace(b, authority=Pair(b.authority.certificate, b.serving.key)),
        lambda b: replace(b, authority=made().authority),
        lambda b: replace(b, next=Pair(b"x", b"y")),
        lambda b: replace(b, previous=b"x"),
        lambda b: signed_by(new_key(), names=()),
        lambda b: signed_by(rsa.generate_private_key(65537, 2048), names=NAMES),
    ],
    ids=[
        *("no certificate", "another key", "another authority", "no next", "no previous"),
        *("a certificate for no name", "an authority of another kind"),
    ],
)
def test_what_cannot_be_used_is_made_anew(broken: object) -> None:
    bundle = made()
    fresh = advanced(broken(bundle), names=NAMES, now=NOW)  # type: ignore[operator]
    assert fresh.authority.certificate not in (bundle.authority.certificate,)
    assert verified(fresh)


def test_an_operator_that_was_away_for_years_begins_anew() -> None:
    assert verified(at(made(), AUTHORITY_LIFE * 2))


def test_a_secret_holds_all_of_it() -> None:
    bundle = at(made(), AUTHORITY_LIFE * 0.7)
    assert read({"data": written(bundle)}) == bundle


@pytest.mark.parametrize("data", [None, {}, {"tls.crt": "!", "tls.key": "!"}, {"ca.crt": 1}])
def test_an_odd_secret_holds_nothing(data: object) -> None:
    assert read({"data": data}) is None


def test_a_pair_that_does_not_match_leaves_the_one_before_in_service() -> None:
    bundle = made(datetime.now(UTC))
    other = new_certificate(bundle.authority, names=NAMES, now=datetime.now(UTC))
    context = server_context()
    load(context, bundle.serving)
    before = shown(context, bundle)
    with pytest.raises(ssl.SSLError):
        load(context, Pair(other.certificate, bundle.serving.key))
    assert shown(context, bundle) == before


def shown(context: ssl.SSLContext, bundle: Bundle) -> object:
    """The serial number that a handshake ends with."""
    trusting = ssl.create_default_context(cadata=bundle.trusted.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server, server_hostname=NAMES[0])
    for end in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return (client.getpeercert() or {})["serialNumber"]
