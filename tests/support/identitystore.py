"""A store that knows callers only by credentials it gave for a token, as MinIO and Ceph do: STS and
S3 at one address. The objects are those of another S3 server, to which it forwards."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta

from aiohttp import web
from tests.support.localserver import Forwarder

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


class IdentityStore(Forwarder):
    """Gives credentials, and forwards what is signed with them.

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
        super().__init__(store)
        self.lives = 3600.0
        self.exchanged: list[dict[str, str]] = []
        self.refuse: tuple[int, str] | None = None
        self.delay = 0.0
        self.keys: set[str] = set()
        self.callers: list[str] = []
        self.expired = 0
        self._ends: dict[str, float] = {}

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._exchange)
        app.router.add_route("*", "/{path:.*}", self._forward)
        return app

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
        status, kept, body = await self._forwarded(request, request.headers)
        return web.Response(status=status, headers=kept, body=body)
