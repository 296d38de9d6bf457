"""Files on web servers: ask for them, judge answers, read ranges.

| the server                              | what follows                                          |
|-----------------------------------------|-------------------------------------------------------|
| redirects, at most 5 times              | followed; credentials stay with the url's own host    |
| redirects from https to http            | followed without credentials: the digest decides      |
| is at a link-local address              | not asked (:mod:`.addresses`)                         |
| does not answer to HEAD                 | GET of the first byte tells the size                  |
| does not tell the size                  | refused: a disk could fill                            |

The proxies and authorities of the process' environment are used; nothing else of it, no ``.netrc``.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidHeader

from beamlit_operator.origins.errors import OriginError, OriginReason, invalid, one_line
from beamlit_operator.origins.listing import MAX_READ_BYTES, OriginFile, ResolvedOrigin, resolved
from beamlit_operator.origins.stores import trust
from beamlit_operator.origins.stores.addresses import Checked, check_host
from beamlit_operator.origins.stores.reach import why
from beamlit_operator.origins.webref import WebFile, WebRef, without_query

TOKEN, USERNAME, PASSWORD = "token", "username", "password"

MAX_CONNECTIONS = 8
MAX_REDIRECTS = 5

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 20.0
_LOOK_ATTEMPTS = 3
_SLOW_DOWN_SECONDS = 5.0
"""How long to wait when a server says that it is too much, and not for how long."""

# As many digits as a size can have: of thousands Python makes no number.
_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)$")


class Asking(Protocol):
    """Who sends requests for the content of files."""

    def ask(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Any]:
        """The answer, its body not read."""

    def refused(self, answer: Any, url: str) -> OriginError:
        """What an answer other than 200 and 206 means for a person."""

    def close(self) -> None:
        """Closes the connections."""


class Client:
    """Asks web servers with the credentials of one origin. Safe to share between threads."""

    def __init__(self, place: str, credentials: Mapping[str, str]) -> None:
        """``place`` is the origin's name in messages."""
        self._secrets = [
            credentials[name] for name in (TOKEN, USERNAME, PASSWORD) if credentials.get(name)
        ]
        self._authorization = _authorization(credentials, place)
        self._proxies = getproxies_environment()
        # For redirects too: whoever vouches for a server, the digest decides about the content.
        own = trust.context(credentials)
        self._trusted: dict[str, Any] = {"ssl_context": own} if own else {"ca_certs": _public()}
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The answer (urllib3's response, its body not read) after redirects.

        Raises:
            OriginError: it cannot be had. What goes wrong in the block is judged too.
        """
        try:
            answer = self._follow(method, url, headers)
            try:
                yield answer
                if method == "HEAD":
                    answer.read()  # nothing; the connection can be used again then
            finally:
                answer.close()  # with what was not read: the connection is of no more use then
        except HTTPError as error:
            raise self.judge(error, url) from None

    def close(self) -> None:
        """Closes the connections."""
        for manager in self._managers.values():
            manager.clear()

    def judge(self, error: HTTPError, url: str) -> OriginError:
        """What a connection's failure means for a person."""
        return OriginError(
            OriginReason.UNREACHABLE, f"{without_query(url)} cannot be reached: {why(error)}"
        )

    def refused(self, answer: Any, url: str) -> OriginError:
        """What an answer other than 200 and 206 means for a person."""
        status, shown = int(answer.status), without_query(url)
        known = self._authorization is not None
        if status == 401 and known:
            return OriginError(
                OriginReason.CREDENTIALS_INVALID,
                f"{shown}: the server does not accept the credentials: correct the Secret",
            )
        if status in (401, 403, 407):
            advice = "allow them to read it" if known else "name a Secret with credentials"
            who = "the credentials are" if known else "anonymous access is"
            return OriginError(
                OriginReason.ACCESS_DENIED, f"{shown}: {who} not allowed to read it: {advice}"
            )
        if status in (404, 410):
            return OriginError(
                OriginReason.NO_OBJECTS, f"{shown}: there is no such file: correct the url"
            )
        if status in (429, 503):
            return OriginError(
                OriginReason.RATE_LIMITED,
                f"{shown}: the server asks to slow down ({status}): it is tried again later",
                retry_after_seconds=_retry_after(answer),
            )
        text = one_line(str(answer.reason or ""), self._secrets)
        return OriginError(
            OriginReason.UNREACHABLE, f"{shown}: the server answered {status} {text}".rstrip()
        )

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        own, here, authorization = urlsplit(url), url, self._authorization
        for _ in range(MAX_REDIRECTS + 1):
            if authorization and not _may_know(own, urlsplit(here)):
                authorization = None  # and never again on this way
            try:
                answer = self._request(method, here, dict(headers), authorization)
            except HTTPError as error:  # here: the url itself may well have answered
                raise self.judge(error, here) from None
            target = answer.get_redirect_location()
            if target is False:
                return answer
            answer.close()
            if not target:
                raise OriginError(
                    OriginReason.UNREACHABLE,
                    f"{without_query(url)}: the server redirects ({answer.status}) to nowhere",
                )
            here = urljoin(here, target)
            if urlsplit(here).scheme not in ("http", "https"):
                raise invalid(
                    f"{without_query(url)}: the server redirects to what is no web server"
                )
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{without_query(url)}: more than {MAX_REDIRECTS} redirects: name the last url",
        )

    def _request(
        self, method: str, url: str, headers: dict[str, str], authorization: str | None
    ) -> Any:
        check_host(urlsplit(url).hostname or "")
        # Not compressed: ranges and digests are of the file's own bytes.
        headers |= {"Accept-Encoding": "identity", "User-Agent": "beamlit-operator"}
        if authorization:
            headers["Authorization"] = authorization
        return self._manager(url).request(
            method,
            url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme, "")
        if proxy and proxy_bypass(parts.hostname or ""):
            proxy = ""
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = (
                    _through(proxy, self._trusted) if proxy else _direct(self._trusted)
                )
            return self._managers[proxy]


def look(ref: WebRef, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Asks for the size of each file: see :func:`beamlit_operator.origins.resolve.resolve`."""
    client = Client(ref.place, credentials)
    try:
        sizes = _sizes(client, ref)
    finally:
        client.close()
    files = [
        OriginFile(file.path, size, f"sha256:{file.sha256}", file.url)
        for file, size in zip(ref.files, sizes, strict=True)
    ]
    return resolved(ref.revision, files, place=ref.place)


def read(
    ref: WebRef, credentials: Mapping[str, str], file: OriginFile, start: int, length: int
) -> bytes:
    """See :func:`beamlit_operator.origins.kinds.read`."""
    client = Client(ref.place, credentials)
    try:
        return read_part(client, file, start, length)
    finally:
        client.close()


def read_part(asking: Asking, file: OriginFile, start: int, length: int) -> bytes:
    """A part of one file.

    Raises:
        OriginError: every failure.
    """
    url = file.source
    wanted = {"Range": f"bytes={start}-{start + length - 1}"}
    with asking.ask("GET", url, wanted) as answer:
        if answer.status not in (200, 206):
            raise asking.refused(answer, url)
        check_size(answer, file)
        # A server that knows no ranges sends the file from its beginning.
        skip = 0 if answer.status == 206 else start
        if skip + length > MAX_READ_BYTES:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"{without_query(url)}: the server sends no parts of files",
            )
        part: bytes = answer.read(skip + length)[skip:]
        if len(part) != length:
            raise OriginError(
                OriginReason.CORRUPT, f"{without_query(url)} is shorter than the server says"
            )
        return part


def check_size(answer: Any, file: OriginFile) -> None:
    """Compares what an answer (200 or 206) says of the whole file's size with what was listed.

    Raises:
        OriginError: ``Corrupt``, when it differs.
    """
    size = _size_of(answer)
    if size is not None and size != file.size:
        raise OriginError(
            OriginReason.CORRUPT,
            f"{without_query(file.source)} has {size} bytes now and had {file.size}: it was changed"
            " meanwhile; name a url whose content stays",
        )


def range_start(answer: Any) -> int | None:
    """Where the part begins that an answer (206) holds."""
    match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    return int(match.group(1)) if match and match.group(1) is not None else None


def _sizes(client: Client, ref: WebRef) -> list[int]:
    """The size of each file; several servers are asked at once."""
    found: dict[int, int | BaseException] = {}
    left = iter(enumerate(ref.files))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                # One failure is enough to end all.
                failed = any(isinstance(each, BaseException) for each in found.values())
                number, file = next(left, (-1, None)) if not failed else (-1, None)
            if file is None:
                return
            try:
                found[number] = _size(client, file)
            except BaseException as error:
                found[number] = error

    # Not an executor: the interpreter would wait for its threads at exit, that is for the servers.
    threads = [
        threading.Thread(target=run, name="web", daemon=True)
        for _ in range(min(MAX_CONNECTIONS, len(ref.files)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in sorted(found):
        result = found[number]
        if isinstance(result, BaseException):
            raise result
    return [size for _, size in sorted(found.items()) if isinstance(size, int)]


def _size(client: Client, file: WebFile) -> int:
    attempt = 1
    while True:
        try:
            return _size_now(client, file.url)
        except OriginError as problem:
            long = problem.reason is OriginReason.RATE_LIMITED and problem.retry_after_seconds > 2
            if problem.stalled or long or attempt == _LOOK_ATTEMPTS:
                raise
            time.sleep(0.25 * 2**attempt)
            attempt += 1


def _size_now(client: Client, url: str) -> int:
    with client.ask("HEAD", url, {}) as answer:
        size = _size_of(answer) if answer.status == 200 else None
        if answer.status in (401, 429, 503):
            raise client.refused(answer, url)
    if size:
        return size
    # Signed urls are for GET only, and some servers know no HEAD, or no size when answering it.
    with client.ask("GET", url, {"Range": "bytes=0-0"}) as answer:
        size = _size_of(answer)
        if answer.status == 416 and size == 0:  # an empty file has no first byte
            return 0
        if answer.status not in (200, 206):
            raise client.refused(answer, url)
    if size is None:
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{without_query(url)}: the server does not say how large the file is: have it send "
            "Content-Length",
        )
    return size


def _size_of(answer: Any) -> int | None:
    """The size of the whole file, if an answer tells it."""
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return int(length) if _NUMBER.fullmatch(length) else None
    match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    return int(match.group(2)) if match and match.group(2) != "*" else None


def _authorization(credentials: Mapping[str, str], place: str) -> str | None:
    token = credentials.get(TOKEN, "").strip()
    name, password = credentials.get(USERNAME, ""), credentials.get(PASSWORD, "")
    if token:
        value = f"Bearer {token}"
    elif name or password:
        value = f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    else:
        return None
    if not (value.isascii() and value.isprintable()):
        raise OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the token for {place} holds characters that no header can: correct the Secret",
        )
    return value


def _may_know(own: SplitResult, other: SplitResult) -> bool:
    """Whether credentials for one url may be sent to another."""
    if own.hostname != other.hostname:
        return False
    upgraded = (own.scheme, other.scheme) == ("http", "https") and not (own.port or other.port)
    return upgraded or (own.scheme, _port(own)) == (other.scheme, _port(other))


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _retry_after(answer: Any) -> float:
    try:
        asked = urllib3.Retry().get_retry_after(answer)
    except (InvalidHeader, ValueError, OverflowError):  # the last two: times that no clock shows
        asked = None
    return asked if asked is not None else _SLOW_DOWN_SECONDS


class _Connection(Checked, HTTPConnection):
    pass


class _SecureConnection(Checked, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _direct(trusted: Mapping[str, Any]) -> urllib3.PoolManager:
    manager = urllib3.PoolManager(maxsize=MAX_CONNECTIONS, **trusted)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def _through(proxy: str, trusted: Mapping[str, Any]) -> urllib3.PoolManager:
    parts = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = urllib3.make_headers(proxy_basic_auth=parts.auth) if parts.auth else None
    return urllib3.ProxyManager(
        parts._replace(auth=None).url,
        proxy_headers=headers,
        maxsize=MAX_CONNECTIONS,
        **trusted,
    )


def _public() -> str:
    return os.environ.get("SSL_CERT_FILE") or certifi.where()
