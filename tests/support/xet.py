"""The store behind a Hub with Xet (CAS), for tests: what its client asks when it downloads.

A file is cut into chunks of 64 KiB, which lie uncompressed in objects (xorbs) of 1 MiB. Formats are
those of Hugging Face's Xet specification: a chunk has a header of 8 bytes (version, compressed
size, scheme, size), and a reconstruction names for a range of a file the chunks and where they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

CHUNK = 64 * 1024
CHUNKS_OF_A_XORB = 16


@dataclass
class XetStore:
    """What is stored, and what was asked.

    Attributes:
        files: content by hash.
        token: what the Hub gives to those who may read.
        asked: ranges of files that were asked for, by hash.
        sent: bytes of xorbs that were sent.
        broken: so many next answers are errors.
        corrupt: xorbs arrive with other content.
        until: only so many of a file's xorbs are there, from the first on.
        refusing: whether the others are refused yet. The client drops what it has not joined when
            one is refused.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    token: str = "xet-token"
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    broken: int = 0
    corrupt: bool = False
    until: int = 1_000_000
    refusing: Callable[[], bool] = lambda: True

    def add(self, content: bytes) -> str:
        """Stores a file and returns its hash."""
        name = hashlib.blake2b(content, digest_size=32).hexdigest()
        self.files[name] = content
        return name

    def routes(self, app: web.Application) -> None:
        """Answers below ``/xet`` of the application."""
        app.router.add_get("/xet/{version}/reconstructions/{file}", self._reconstruction)
        app.router.add_get("/xet/xorb/{file}/{number}", self._xorb)

    def ticket(self, endpoint: str) -> dict[str, str | int]:
        """What the Hub answers to who asks for a token."""
        return {
            "casUrl": f"{endpoint}/xet",
            "accessToken": self.token,
            "exp": int(time.time()) + 3600,
        }

    async def _reconstruction(self, request: web.Request) -> web.StreamResponse:
        if self.broken:
            self.broken -= 1
            raise web.HTTPServiceUnavailable
        if request.match_info["version"] != "v2":
            raise web.HTTPNotImplemented
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise web.HTTPUnauthorized
        name = request.match_info["file"]
        content = self.files[name]
        asked = request.headers.get("Range", f"bytes=0-{len(content) - 1}")
        self.asked.append((name, asked))
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        if first > last:
            raise web.HTTPRequestRangeNotSatisfiable
        terms, places = [], {}
        begin, end = first // CHUNK, last // CHUNK + 1
        while begin < end:
            number = begin // CHUNKS_OF_A_XORB
            stop = min(end, (number + 1) * CHUNKS_OF_A_XORB)
            chunks = {
                "start": begin % CHUNKS_OF_A_XORB,
                "end": stop - number * CHUNKS_OF_A_XORB,
            }
            xorb = hashlib.blake2b(f"{name}/{number}".encode(), digest_size=32).hexdigest()
            length = min(stop * CHUNK, len(content)) - begin * CHUNK
            terms.append({"hash": xorb, "unpacked_length": length, "range": chunks})
            start = chunks["start"] * (CHUNK + 8)
            size = length + 8 * (chunks["end"] - chunks["start"])
            place = {"start": start, "end": start + size - 1}
            url = f"http://{request.host}/xet/xorb/{name}/{number}"
            places[xorb] = [{"url": url, "ranges": [{"chunks": chunks, "bytes": place}]}]
            begin = stop
        return web.json_response(
            {"offset_into_first_range": first % CHUNK, "terms": terms, "xorbs": places}
        )

    async def _xorb(self, request: web.Request) -> web.StreamResponse:
        if int(request.match_info["number"]) >= self.until:
            while not self.refusing():
                await asyncio.sleep(0.01)
            raise web.HTTPForbidden
        content, number = (
            self.files[request.match_info["file"]],
            int(request.match_info["number"]),
        )
        begin = number * CHUNKS_OF_A_XORB * CHUNK
        stored = bytearray()
        for start in range(begin, min(begin + CHUNKS_OF_A_XORB * CHUNK, len(content)), CHUNK):
            chunk = content[start : start + CHUNK]
            if self.corrupt:
                chunk = bytes(len(chunk))
            size = len(chunk).to_bytes(3, "little")
            stored += b"\0" + size + b"\0" + size + chunk
        asked = request.headers["Range"].removeprefix("bytes=")
        first, last = (int(part) for part in asked.split("-"))
        part = bytes(stored[first : last + 1])
        self.sent += len(part)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(stored)}"}
        return web.Response(status=206, body=part, headers=headers)
