"""The client that speaks S3: how it is configured, and as whom it asks.

It is configured here and by nothing else: no profile, no AWS variable of the process' environment,
and no instance metadata unless the credentials say so (:mod:`.identity`), because an operator must
not lend its own rights to a Model.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.credentials import CredentialResolver
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import ReadTimeoutError as Urllib3TimeoutError

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.ref import S3Ref
from beamlit_operator.origins.stores.addresses import Checked, check_host
from beamlit_operator.origins.stores.answers import S3_BYTES, S3_VALUES, taken
from beamlit_operator.origins.stores.identity import (
    ACCESS_KEY,
    SECRET_KEY,
    SESSION_TOKEN,
    Who,
    node_credentials,
    role_credentials,
    who_asks,
)
from beamlit_operator.origins.stores.trust import Bundle, bundle

MAX_CONNECTIONS = 8

_DEFAULT_REGION = "us-east-1"
_CLIENT_LOCK = threading.RLock()


def client(ref: S3Ref, credentials: Mapping[str, str]) -> Any:
    """A botocore S3 client for ``ref``. Safe to share between threads.

    Raises:
        OriginError: ``credentials`` has only one of the two keys, the node has no identity, or the
            authorities are none.
    """
    who = who_asks(credentials)
    trusted = bundle(credentials)
    config = Config(  # type: ignore[no-untyped-call]
        # Names with dots break TLS host names, and few compatible stores have DNS per bucket.
        s3={"addressing_style": _style(ref)},
        signature_version=UNSIGNED if who is Who.NOBODY else "s3v4",
        max_pool_connections=MAX_CONNECTIONS,
        # Ranges are verified here; not every compatible store knows the checksum headers.
        response_checksum_validation="when_required",
    ).merge(_patience())
    session = _session_of(who, ref, credentials, trusted)
    keys: dict[str, str | None] = {}
    if who is Who.KEY:
        _check_pair(credentials, ref)
        keys = {
            "aws_access_key_id": credentials[ACCESS_KEY],
            "aws_secret_access_key": credentials[SECRET_KEY],
            "aws_session_token": credentials.get(SESSION_TOKEN) or None,
        }
    with _CLIENT_LOCK:  # creating clients is not thread-safe, using them is
        made = session.create_client(
            "s3",
            region_name=ref.region or _DEFAULT_REGION,
            endpoint_url=ref.endpoint,
            verify=trusted.path if trusted is not None else None,
            config=config,
            **keys,
        )
    made.meta.events.register("before-call.s3.HeadBucket", _follow_no_further)
    _hold(made, trusted)
    return _bounded(made)


def _follow_no_further(params: Mapping[str, Any], **_: Any) -> None:
    """botocore asks for a bucket's region when it is redirected, by a request that it follows in
    the same way: a store that redirects everything it would ask without end."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _bounded(made: Any) -> Any:
    """The client, which takes no answer without an end, and leads nowhere that origins may not:
    its library has no place to say so."""
    session = made._endpoint.http_session
    session._manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    made._endpoint.http_session = _Session(session)
    return made


class _Connection(Checked, AWSHTTPConnection):
    pass


class _SecureConnection(Checked, AWSHTTPSConnection):
    pass


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Session:
    """Sends requests as botocore's own session, and reads answers part by part."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """The answer; an object's content is not read yet."""
        check_host(urlsplit(request.url).hostname or "")
        streamed, request.stream_output = request.stream_output, True
        try:
            answer = self._session.send(request)
        except HTTPClientError as error:
            # What a connection of ours said; the session wraps whatever it does not know.
            if isinstance(error.kwargs.get("error"), OriginError):
                raise error.kwargs["error"] from None
            raise
        finally:
            request.stream_output = streamed
        answer.raw = _Raw(answer.raw)
        if not streamed:
            url = request.url
            # As botocore's session judges, so that the same is tried again.
            try:
                _ = answer.content
            except Urllib3TimeoutError as error:
                raise _timed_out(endpoint_url=url, error=error) from None
            except ProtocolError as error:
                raise _closed(error=error, request=request, endpoint_url=url) from None
            except HTTPError as error:
                raise _failed(error=error) from None
        return answer

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()


class _Raw:
    """An answer's body. botocore reads it by `stream` where it wants all of it at once, also where
    it says why there is no object."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield _content(self._raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


_timed_out: Any = ReadTimeoutError
_closed: Any = ConnectionClosedError
_failed: Any = HTTPClientError


def _content(raw: Any) -> bytes:
    try:
        return taken(_parts(raw), most=S3_BYTES, values=S3_VALUES, signs=b"<")
    except BaseException:
        raw.close()  # with what was not read: the connection is of no more use
        raise


def _parts(raw: Any) -> Iterator[bytes]:
    while part := raw.read1(2**16):
        yield part
    raw.release_conn()


def _style(ref: S3Ref) -> str:
    if ref.addressing_style != "auto":
        return ref.addressing_style
    return "path" if ref.endpoint else "auto"


def _check_pair(credentials: Mapping[str, str], ref: S3Ref) -> None:
    for name in (ACCESS_KEY, SECRET_KEY):
        if not credentials.get(name):
            raise OriginError(
                OriginReason.CREDENTIALS_INVALID,
                f"the credentials for {ref.place} have no {name}: add it, or give neither key to "
                "read a public bucket",
            )


def _patience() -> Config:
    return Config(  # type: ignore[no-untyped-call]
        connect_timeout=5,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 4},
        ignore_configured_endpoint_urls=True,
    )


def _session_of(
    who: Who, ref: S3Ref, credentials: Mapping[str, str], trusted: Bundle | None
) -> Any:
    """The session whose clients sign as ``who``."""
    nobody = _session()
    if who in (Who.KEY, Who.NOBODY):
        return nobody
    if who is Who.NODE:
        found = node_credentials(nobody, place=ref.place)
    else:
        region = ref.region or _DEFAULT_REGION

        def make_client(service: str, endpoint: str | None, config: Config) -> Any:
            with _CLIENT_LOCK:
                made = nobody.create_client(
                    service,
                    region_name=region,
                    endpoint_url=endpoint,
                    verify=trusted.path if trusted is not None else None,
                    config=config.merge(_patience()),  # type: ignore[no-untyped-call]
                )
            _hold(made, trusted)
            return _bounded(made)

        found = role_credentials(
            credentials, place=ref.place, region=region, make_client=make_client
        )
    session = _new_session()
    # What a session reads for its first client, and most of what making one costs.
    session.register_component("data_loader", nobody.get_component("data_loader"))
    session.register_component("credential_provider", _Known(found))
    return session


class _Known:
    """Stands for a session's chain of providers: the answer is known."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


def _hold(made: Any, trusted: Bundle | None) -> None:
    """Keeps the bundle's file while the client lives, which reads it at each connection."""
    if trusted is not None:
        weakref.finalize(made, trusted.held)


def _new_session() -> Any:
    return botocore.session.Session(  # type: ignore[no-untyped-call]
        session_vars={
            "profile": (None, None, None, None),
            "region": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )


@functools.cache
def _session() -> Any:
    session = _new_session()
    # Without this an anonymous client would search the whole chain, up to instance metadata.
    nobody = CredentialResolver([])  # type: ignore[no-untyped-call]
    session.register_component("credential_provider", nobody)
    return session
