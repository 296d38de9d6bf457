"""A store that knows callers only by credentials it gave for a token, as MinIO and Ceph do: STS and
S3 at one address. The objects are those of another S3 server, to which it forwards."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web

_CREDENTIAL = re.compile(r"Credential=([A-Z0-9]+)/")
_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/models/x</Arn>
<AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>of-{key}</SecretAccessKey>
<SessionToken>session-{key}</SessionToken><Expiration>{ends}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""


class IdentityStore:
    """Runs in a thread of its own.

    Attributes:
        lives: seconds after which the credentials that it gives end.
        exchanged: the parameters of every exchange.
        refuse: status and code with which every exchange is refused; None: it is not.
        delay: seconds that every object (or range) takes.
        keys: those of people that it knows; they need no token.
        callers: the key of every request for S3; empty for one that is not signed.
        expired: how many of them came with a key that had ended.
    """

    def __init__(self, store: str) -> None:
        self.lives = 3600.0
        self.exchanged: list[dict[str, str]] = []
        self.refuse: tuple[int, str] | None = None
        self.delay = 0.0
        self.keys: set[str] = set()
        self.callers: list[str] = []
        self.expired = 0
        self.endpoint = ""
        self._ends: dict[str, float] = {}
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    def __enter__(self) -> IdentityStore:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.router.add_post("/", self._exchange)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _exchange(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        assert form["Action"] == "AssumeRoleWithWebIdentity"
        assert "Authorization" not in request.headers
        self.exchanged.append(form)
        if self.refuse is not None:
            status, code = self.refuse
            text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>of "
            text += f"{form['WebIdentityToken']}</Message></Error></ErrorResponse>"
            return web.Response(status=status, text=text, content_type="text/xml")
        key = f"ASIA{len(self.exchanged):016}"
        self._ends[key] = time.monotonic() + self.lives
        ends = datetime.now(UTC) + timedelta(seconds=self.lives)
        written = ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return web.Response(text=_ANSWER.format(key=key, ends=written), content_type="text/xml")

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
        key = found[1] if found else ""
        self.callers.append(key)
        code = ""
        if key.startswith("AKIA"):
            code = "" if key in self.keys else "InvalidAccessKeyId"
        elif (
            request.headers.get("X-Amz-Security-Token") != f"session-{key}" or key not in self._ends
        ):
            code = "AccessDenied"
        elif time.monotonic() > self._ends[key]:
            self.expired += 1
            code = "ExpiredToken"
        if code:
            text = f"<Error><Code>{code}</Code></Error>"
            return web.Response(status=400 if code == "ExpiredToken" else 403, text=text)
        if "list-type" not in request.query and "versions" not in request.query:
            await asyncio.sleep(self.delay)
        assert self._session is not None
        url = f"{self._store}{request.raw_path}"
        async with self._session.request(request.method, url, headers=request.headers) as answer:
            body = await answer.read()
        left_out = ("content-length", "transfer-encoding", "connection", "date")
        kept = {n: value for n, value in answer.headers.items() if n.lower() not in left_out}
        return web.Response(status=answer.status, headers=kept, body=body)
