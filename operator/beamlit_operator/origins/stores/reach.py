"""Why a store cannot be reached, for people: libraries wrap what happened in errors of their own.

| what happened, however deep it is wrapped | what is said                                        |
|-------------------------------------------|-----------------------------------------------------|
| the name has no address                   | check the name and the DNS                          |
| nobody listens                            | check the port, and whether the store runs          |
| no answer in time                         | check the network, and firewalls between            |
| its certificate has ended                 | renew it, or the clock here is ahead                |
| its certificate is not good yet           | the clock here is behind, or wait                   |
| its certificate is for another name       | use a name that it has                              |
| TLS failed else                           | check the address, or name authorities              |
| the connection broke                      | check the store, and proxies between                |
| anything else                             | its class; check the address and the network        |
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

_DEPTH = 12

# By what X509_STORE_CTX_get_error(3) of OpenSSL calls it; Python's ssl has no names for them.
_NOT_YET_VALID, _HAS_EXPIRED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH = 9, 10, 62, 64
_OTHER_NAME = "its certificate is for another name; use one that stands in it, or have it made anew"
_CERTIFICATES = {
    _HAS_EXPIRED: "its certificate has ended; have it renewed, unless the clock here is ahead",
    _NOT_YET_VALID: "its certificate is not good yet; set the clock here, or that of who made it",
    _HOSTNAME_MISMATCH: _OTHER_NAME,
    _IP_ADDRESS_MISMATCH: _OTHER_NAME,
}


def why(error: BaseException) -> str:
    """What follows "... cannot be reached: "; never the error's own text, which may hold a URL."""
    chain = list(_chain(error))
    names = " ".join(type(each).__name__ for each in chain)
    if any(isinstance(each, socket.gaierror) for each in chain) or "NameResolution" in names:
        return "its host name has no address; check the name and the DNS"
    codes = {each.verify_code for each in chain if isinstance(each, ssl.SSLCertVerificationError)}
    for code, words in _CERTIFICATES.items():
        if code in codes:
            return words
    if any(type(each).__name__ == "CertificateError" for each in chain):  # urllib3's own
        return _OTHER_NAME
    if any(isinstance(each, ssl.SSLError) for each in chain) or "SSLError" in names:
        return (
            "its certificate is not trusted or TLS failed; check the address, and name authorities "
            "of your own in caConfigMapRef"
        )
    if any(isinstance(each, ConnectionRefusedError) for each in chain):
        return "its host refuses connections; check the port, and whether the store runs"
    if any(isinstance(each, TimeoutError) for each in chain) or "Timeout" in names:
        return "it does not answer in time; check the network, and firewalls between"
    if any(isinstance(each, ConnectionError) for each in chain) or "Protocol" in names:
        return "it breaks connections off; check the store, and proxies between"
    return f"{type(error).__name__}; check the address and the network"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made of: causes, contexts, and what libraries keep in attributes
    (botocore's ``kwargs``, urllib3's ``reason``)."""
    left: list[object] = [error]
    seen: set[int] = set()
    while left and len(seen) < _DEPTH:
        each = left.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__cause__, each.__context__, getattr(each, "reason", None)]
        kept = getattr(each, "kwargs", None)
        left += [kept.get("error")] if isinstance(kept, dict) else []
        left += each.args
