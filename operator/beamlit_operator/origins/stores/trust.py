"""Authorities that are trusted for one origin, besides the public ones: `caConfigMapRef`.

Nothing here is process-wide: another origin, or the same one of another workspace, is held to the
public authorities only. What the operator as a whole trusts (`BEAMLIT_CA_FILE`, :mod:`.kube.trust`)
counts for every origin, and so here too.

The certificates travel as text among the credentials, under :data:`AUTHORITIES`, because they come
the same way: the operator reads them out of the workspace's ConfigMap
(:mod:`beamlit_operator.controllers.opening`), a fetching container out of the file that
`BEAMLIT_ORIGIN_CA_FILE` names (:func:`read_authorities`). A store uses them like this:

- a library that takes a file (botocore's ``verify``, requests): :func:`bundle`, whose file lives as
  long as the answer is held;
- a library that takes a context (httpx, urllib3, aiohttp): :func:`context`.

Both answer None where the origin names no authorities: then the library's own default is right.
"""

from __future__ import annotations

import functools
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from beamlit_operator.origins.errors import OriginError, OriginReason

# Imported where they are used, as certifi is: most fetches have no authorities of their own, and
# every cold start waits.
if TYPE_CHECKING:
    import ssl

AUTHORITIES = "ca.crt"
"""The key of the credentials under which the origin's authorities stand, as PEM."""

VARIABLE = "BEAMLIT_ORIGIN_CA_FILE"
"""Names the file in a fetching container."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")

_KEPT = 32
"""Bundles that stay on the disk for the next look; a third of a megabyte each."""


class Bundle:
    """A file with the public authorities and those of one origin. It is removed when nobody holds
    this object any more, and at the end of the process."""

    def __init__(self, own: str) -> None:
        import tempfile

        with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as file:
            self.path = file.name
            # Before anything is written: a full disk must not leave it behind.
            weakref.finalize(self, _remove, file.name)
            file.write(Path(_public()).read_bytes() + b"\n" + own.encode())

    def held(self) -> None:
        """Does nothing; who has this method to call later keeps the file until then."""


def bundle(credentials: Mapping[str, str]) -> Bundle | None:
    """The file to verify a store's certificate with; the same one for the same authorities.

    Raises:
        OriginError: the authorities are no certificates.
    """
    own = credentials.get(AUTHORITIES)
    if own is None:
        return None
    return _bundle(certificates(own))


def context(credentials: Mapping[str, str]) -> ssl.SSLContext | None:
    """The same as a context of TLS.

    Raises:
        OriginError: the authorities are no certificates.
    """
    import ssl

    own = credentials.get(AUTHORITIES)
    if own is None:
        return None
    made = ssl.create_default_context(cadata=certificates(own))
    made.load_verify_locations(cafile=_public())
    return made


def certificates(text: str) -> str:
    """The certificates in a text; what stands between them is left out.

    Raises:
        OriginError: ``InvalidReference``, if there is none, or one that cannot be read.
    """
    import ssl

    found = "\n".join(_CERTIFICATE.findall(text)) + "\n"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError):
        raise OriginError(
            OriginReason.INVALID_REFERENCE,
            "the authorities of the origin are no certificates as PEM, which begin with "
            "-----BEGIN CERTIFICATE-----: correct the ConfigMap",
        ) from None
    return found


def read_authorities(environment: Mapping[str, str]) -> dict[str, str]:
    """The origin's authorities as a fetching container finds them, as a part of the credentials.

    Raises:
        OriginError: the file cannot be read.
    """
    name = environment.get(VARIABLE)
    if not name:
        return {}
    try:
        return {AUTHORITIES: Path(name).read_text(errors="replace")}
    except OSError as error:
        raise OriginError(
            OriginReason.INVALID_REFERENCE, f"${VARIABLE}: {name} cannot be read: {error.strerror}"
        ) from None


@functools.lru_cache(maxsize=_KEPT)
def _bundle(own: str) -> Bundle:
    return Bundle(own)


def _public() -> str:
    """The file with what this process trusts anyhow: the public authorities, and the operator's."""
    import certifi

    own = os.environ.get("SSL_CERT_FILE") if os.environ.get("BEAMLIT_CA_FILE") else None
    return own or certifi.where()


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
