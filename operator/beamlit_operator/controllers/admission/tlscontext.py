"""The TLS side of the webhook's socket; its certificate can be changed while it listens.

OpenSSL uses the certificate that the context holds when a handshake begins, so that loading another
into the same context is all a rotation needs: no new socket, no restart, no call lost.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beamlit_operator.controllers.admission.certificates import Pair


def server_context() -> ssl.SSLContext:
    """A context without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, pair: Pair) -> None:
    """From now on, handshakes show this certificate.

    Raises:
        ssl.SSLError: certificate and key do not belong together, or cannot be read. Handshakes go
            on showing the one before.
    """
    # The library reads files only; this one has no name that anybody else could open.
    with _file(pair.certificate + pair.key) as path:
        # OpenSSL takes the certificate before it looks at the key, and drops the key that it had:
        # a pair that does not match would leave the context with neither.
        server_context().load_cert_chain(path)
        context.load_cert_chain(path)


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("beamlit-webhook", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, name = tempfile.mkstemp()
    try:
        os.write(descriptor, content)
        os.close(descriptor)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
