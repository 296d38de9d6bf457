"""A server that speaks the Hugging Face Hub's HTTP API, for tests.

It answers what ``huggingface_hub`` asks when it resolves and downloads, with the status codes and
``X-Error-*`` headers of the real Hub:

| repository | caller                  | listing            | files and auth-check  |
|------------|-------------------------|--------------------|-----------------------|
| public     | anybody                 | 200                | 200                   |
| any        | with an unknown token   | 401                | 401                   |
| private    | without its token       | as if missing      | as if missing         |
| gated      | without granted access  | 200                | 401 or 403 GatedRepo  |
| missing    | anonymous               | 401                | 401                   |
| missing    | with a valid token      | 404 RepoNotFound   | 404 RepoNotFound      |

Large files are redirected to another path, as the Hub does to its content network.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import ssl
from dataclasses import dataclass, field

from aiohttp import web
from tests.support.localserver import LocalServer
from tests.support.xet import XetStore


@dataclass
class HubRepo:
    """A repository; tests change it as they like while the server runs."""

    commits: dict[str, dict[str, bytes]]
    """Commit sha to files."""
    refs: dict[str, str]
    """Branch or tag to commit sha."""
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    """Tokens that may see it (private) or read its files (gated)."""


class HubServer(LocalServer):
    """Holds repositories.

    Attributes:
        requests: what was asked: ``"GET /path"``.
        shown: by which host's name it was asked with which ``Authorization``.
        tokens: those the Hub knows.
        large_from_bytes: files from this size on are large files (LFS).
        storm: so many next requests are answered with ``storm_status``.
        corrupt: paths whose content arrives with a wrong first byte.
        cut: paths whose next transfer breaks off half-way.
        stall: paths whose next transfer stops half-way, and keeps the connection.
        refusals: what the content network answers to the next requests: status and headers.
        without_ranges: files come whole, whatever is asked for.
        without_sizes: the summary of a repository names its files only.
        xet: if there is one, where large files are stored besides.
        content_network: URL of what serves large files; another host than the Hub's.
    """

    def __init__(self, *, xet: XetStore | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.repos: dict[str, HubRepo] = {}
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.shown: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.large_from_bytes = 100_000
        self.storm = 0
        self.storm_status = 429
        self.storm_headers: dict[str, str] = {}
        self.without_sizes = False
        self.corrupt: set[str] = set()
        self.cut: set[str] = set()
        self.stall: set[str] = set()
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.without_ranges = False
        self.xet = xet
        self.context = tls
        self.xet_tokens_elsewhere = False
        self.content_network = ""

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Commits ``files`` to ``branch`` and returns the commit's sha."""
        digests = sorted((path, _sha256(content)) for path, content in files.items())
        summary = repr((name, branch, digests))
        sha = hashlib.sha1(summary.encode()).hexdigest()
        repo = self.repos.setdefault(name, HubRepo({}, {}))
        repo.commits[sha] = dict(files)
        repo.refs[branch] = sha
        return sha

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/api/models/{repo:.+}/revision/{revision:.+}", self._info)
        app.router.add_get("/api/models/{repo:.+}/tree/{revision:.+}", self._tree)
        app.router.add_get("/api/models/{repo:.+}/auth-check", self._auth_check)
        app.router.add_get("/api/models/{repo:.+}/xet-read-token/{revision}", self._xet_token)
        if self.xet is not None:
            self.xet.routes(app)
        app.router.add_get("/large/{repo:.+}/-/{sha}/{path:.+}", self._large)
        app.router.add_get("/{repo:.+}/resolve/{revision}/{path:.+}", self._resolve)
        return app

    async def _start(self) -> None:
        await super()._start()
        # Another name, since the library follows redirects to the same host at once.
        self.content_network = self.endpoint.replace("127.0.0.1", "localhost")

    @web.middleware
    async def _gate(self, request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        self.shown.append((request.host, request.headers.get("Authorization", "")))
        if self.storm > 0:
            self.storm -= 1
            return web.Response(status=self.storm_status, headers=self.storm_headers)
        token = self._token(request)
        if (
            token is not None
            and token not in self.tokens
            and not request.path.startswith(("/large", "/xet"))
        ):
            return web.Response(
                status=401, headers={"X-Error-Message": "Invalid username or password."}
            )
        return await handler(request)

    async def _info(self, request: web.Request) -> web.StreamResponse:
        repo, sha = self._find(request)
        siblings = []
        for path, content in repo.commits[sha].items():
            entry: dict[str, object] = {"rfilename": path}
            if not self.without_sizes:
                entry |= {"size": len(content), "blobId": _git_sha(content)}
                if self._is_large(content):
                    entry["lfs"] = _lfs("sha256", content)
            siblings.append(entry)
        name = request.match_info["repo"]
        gated = "manual" if repo.gated else False
        return web.json_response(
            {"id": name, "sha": sha, "siblings": siblings, "gated": gated, "private": repo.private}
        )

    async def _tree(self, request: web.Request) -> web.StreamResponse:
        repo, sha = self._find(request)
        entries = []
        for path, content in repo.commits[sha].items():
            entry = {"type": "file", "path": path, "oid": _git_sha(content), "size": len(content)}
            if self._is_large(content):
                entry["lfs"] = _lfs("oid", content)
            entries.append(entry)
        return web.json_response(entries)

    async def _auth_check(self, request: web.Request) -> web.StreamResponse:
        self._check_gate(request, self._visible(request))
        return web.json_response({})

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        repo, sha = self._find(request)
        self._check_gate(request, repo)
        name, path = request.match_info["repo"], request.match_info["path"]
        content = repo.commits[sha].get(path)
        if content is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_git_sha(content)}"'}
        if self._is_large(content):
            headers["X-Linked-Size"] = str(len(content))
            headers["X-Linked-Etag"] = f'"{_sha256(content)}"'
            if self.xet is not None:
                host = self.content_network if self.xet_tokens_elsewhere else self.endpoint
                headers["X-Xet-Hash"] = self.xet.add(content)
                headers["X-Xet-Refresh-Route"] = f"{host}/api/models/{name}/xet-read-token/{sha}"
            headers["Location"] = f"{self.content_network}/large/{name}/-/{sha}/{path}"
            return web.Response(status=302, headers=headers)
        return await self._content(request, path, content, headers)

    async def _xet_token(self, request: web.Request) -> web.StreamResponse:
        self._check_gate(request, self._find(request)[0])
        assert self.xet is not None
        return web.json_response(self.xet.ticket(self.endpoint))

    async def _large(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            status, refusal = self.refusals.pop(0)
            return web.Response(status=status, headers=refusal)
        match = request.match_info
        content = self.repos[match["repo"]].commits[match["sha"]][match["path"]]
        etag = f'"{_sha256(content)}"'
        return await self._content(request, match["path"], content, {"ETag": etag})

    async def _content(
        self, request: web.Request, path: str, content: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        start, end, status = 0, len(content), 200
        asked = request.headers.get("Range")
        if asked and not self.without_ranges:
            self.ranges.append(asked)
            first, last = asked.removeprefix("bytes=").split("-")
            start, status = int(first), 206
            end = min(int(last) + 1 if last else len(content), len(content))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        if path in self.corrupt:
            body = b"\xff" + body[1:]
        broken = self.cut | self.stall
        if request.method == "HEAD" or path not in broken:
            return web.Response(
                status=status, body=body, headers=headers, content_type="application/octet-stream"
            )
        stalls = path in self.stall
        self.cut.discard(path)
        self.stall.discard(path)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if stalls:
            await asyncio.sleep(60)  # until the caller gives up
        assert request.transport is not None
        request.transport.close()
        return response

    def _find(self, request: web.Request) -> tuple[HubRepo, str]:
        repo, revision = self._visible(request), request.match_info["revision"]
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return repo, sha

    def _visible(self, request: web.Request) -> HubRepo:
        repo, token = self.repos.get(request.match_info["repo"]), self._token(request)
        if repo is not None and (not repo.private or token in repo.granted):
            return repo
        if token is None:
            raise web.HTTPUnauthorized(headers={"X-Error-Message": "Invalid username or password."})
        raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})

    def _check_gate(self, request: web.Request, repo: HubRepo) -> None:
        token = self._token(request)
        if repo.gated and token not in repo.granted:
            headers = {"X-Error-Code": "GatedRepo"}
            raise (web.HTTPForbidden if token else web.HTTPUnauthorized)(headers=headers)

    def _token(self, request: web.Request) -> str | None:
        value = request.headers.get("Authorization")
        return value.removeprefix("Bearer ") if value else None

    def _is_large(self, content: bytes) -> bool:
        return len(content) >= self.large_from_bytes


@functools.lru_cache(maxsize=1024)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=1024)
def _git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _lfs(name: str, content: bytes) -> dict[str, object]:
    return {name: _sha256(content), "size": len(content), "pointerSize": 130}
