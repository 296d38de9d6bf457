"""Authorities of one's own are trusted besides the public ones."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import certifi

from beamlit_operator.controllers.admission.certificates import new_authority
from beamlit_operator.kube.trust import BUNDLES, trust_own_authorities


def test_without_a_file_nothing_is_changed() -> None:
    environ: dict[str, str] = {}
    assert trust_own_authorities(environ) is None
    assert environ == {}


def test_a_bundle_has_the_public_authorities_and_the_own(tmp_path: Path) -> None:
    own = tmp_path / "ca.crt"
    own.write_bytes(new_authority(datetime.now(UTC)).certificate)
    environ = {"BEAMLIT_CA_FILE": str(own), "AWS_CA_BUNDLE": "/mine"}
    assert trust_own_authorities(environ) is None
    assert environ["AWS_CA_BUNDLE"] == "/mine", "what somebody set stays"
    assert environ["SSL_CERT_FILE"] == environ["REQUESTS_CA_BUNDLE"]
    assert set(BUNDLES) <= environ.keys()

    def trusted(bundle: str) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(bundle)
        return context.cert_store_stats()["x509"]

    assert trusted(environ["SSL_CERT_FILE"]) == trusted(certifi.where()) + 1
    Path(environ["SSL_CERT_FILE"]).unlink()


def test_a_file_that_is_not_there_or_no_certificate_is_told(tmp_path: Path) -> None:
    environ = {"BEAMLIT_CA_FILE": str(tmp_path / "none.crt")}
    problem = trust_own_authorities(environ)
    assert problem is not None
    assert "none.crt cannot be read (No such file or directory)" in problem
    assert "certificateAuthorities.configMap" in problem
    wrong = tmp_path / "ca.crt"
    wrong.write_text("hello")
    problem = trust_own_authorities(environ | {"BEAMLIT_CA_FILE": str(wrong)})
    assert problem is not None
    assert "no certificate as PEM" in problem
    assert environ.keys() == {"BEAMLIT_CA_FILE"}
