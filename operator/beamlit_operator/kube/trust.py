"""Authorities of one's own: trusted besides the public ones by whatever reaches origins.

`$BEAMLIT_CA_FILE` names a file with certificates as PEM, such as a mounted ConfigMap has. What the
libraries read (`SSL_CERT_FILE` httpx and OpenSSL, `AWS_CA_BUNDLE` botocore, `REQUESTS_CA_BUNDLE`
requests) replaces the public ones, so a file with both is made. A variable that is set already is
left alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "BEAMLIT_CA_FILE"
BUNDLES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


def trust_own_authorities(environ: MutableMapping[str, str]) -> str | None:
    """Sets the variables of the libraries; call it before they are used.

    Returns:
        What is wrong with the file, as a sentence; None if there is none, or nothing is wrong.
    """
    name = environ.get(VARIABLE)
    if not name:
        return None
    # Imported here: most fetches have no authorities of their own, and every cold start waits.
    import certifi
    from cryptography import x509

    try:
        own = Path(name).read_bytes()
    except OSError as error:
        return (
            f"${VARIABLE}: {name} cannot be read ({error.strerror}), so only public authorities "
            "are trusted; in a pod it is a key of the ConfigMap that the chart's value "
            "certificateAuthorities.configMap names"
        )
    try:
        x509.load_pem_x509_certificates(own)
    except ValueError:
        return f"${VARIABLE}: {name} holds no certificate as PEM: only public ones are trusted"
    # It is read for as long as the process lives.
    with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as bundle:
        bundle.write(Path(certifi.where()).read_bytes() + b"\n" + own)
    for variable in BUNDLES:
        environ.setdefault(variable, bundle.name)
    return None
