"""``python -m beamlit_operator.cli.releasetest``: what `helm test` runs in a pod.

The quickstart with nothing from outside the cluster: this pod is the store of a model's files, and
the model's server is this project's image. An Environment, a Model and a ModelDeployment are made,
the sleeping model is called through the gateway with the pod's own token, and all is removed again.
So it goes the way of every model: origin, placement, fetching, waking, authentication, routing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from beamlit_operator.kube import (
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    ApiError,
    HttpClient,
    Json,
    Resource,
    connect,
)

NAME = "helm-test"
"""Of all that is made: the rights of `helm test` are for objects of this name."""
FILE = "answer.json"
CONTENT = json.dumps({"answer": "served by Beamlit"}).encode()
SERVER_PORT = 8080
_API = "beamlit.com/v1alpha1"
_KINDS: tuple[Resource, ...] = (MODEL_DEPLOYMENTS, MODELS, ENVIRONMENTS)
"""In the order in which they go: the webhook refuses to delete what is in use."""


class TestError(Exception):
    """What did not work, as a sentence."""


def objects(workspace: str, *, store: str, image: str, pull_secrets: list[str]) -> list[Json]:
    """What the test makes, in order."""

    def made(kind: str, spec: Json) -> Json:
        head = {"apiVersion": _API, "kind": kind}
        return {**head, "metadata": {"name": NAME, "namespace": workspace}, "spec": spec}

    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    secrets = [{"name": each} for each in pull_secrets]
    return [
        made("Environment", {"displayName": "helm test", "policies": []}),
        made("Model", {"origin": {"s3": {"uri": f"s3://{NAME}/model", "endpoint": store}}}),
        made(
            "ModelDeployment",
            {
                "model": NAME,
                "environment": NAME,
                "runtime": {
                    "image": image,
                    "command": ["python", "-m", "beamlit_operator.cli.releasetest"],
                    "args": ["--serve", "/mnt/models"],
                    "envs": [address],
                    "servingPort": SERVER_PORT,
                    "readinessProbe": {
                        "httpGet": {"path": "/", "port": SERVER_PORT},
                        "periodSeconds": 1,
                    },
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "64Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                },
                "serverlessConfig": {"maxNumReplicas": 1},
                **({"podTemplate": {"spec": {"imagePullSecrets": secrets}}} if secrets else {}),
            },
        ),
    ]


def store_application() -> web.Application:
    """As much of S3 as a fetcher asks for, with one file."""
    key, digest = f"model/{FILE}", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()

    async def listing(_: web.Request) -> web.Response:
        body = (
            '<?xml version="1.0"?><ListBucketResult '
            'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{NAME}</Name><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>"
            f"<Contents><Key>{key}</Key><ETag>&quot;{digest}&quot;</ETag>"
            f"<Size>{len(CONTENT)}</Size></Contents></ListBucketResult>"
        )
        return web.Response(text=body, content_type="application/xml")

    async def content(request: web.Request) -> web.Response:
        asked = request.http_range
        part = CONTENT[asked]
        first = asked.start or 0
        headers = {"ETag": f'"{digest}"'}
        if "Range" not in request.headers:
            return web.Response(body=part, headers=headers)
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(CONTENT)}"
        return web.Response(status=206, body=part, headers=headers)

    app = web.Application()
    app.router.add_get(f"/{NAME}", listing)
    app.router.add_get(f"/{NAME}/", listing)
    app.router.add_get(f"/{NAME}/{key}", content)
    return app


@contextlib.asynccontextmanager
async def running_store(host: str) -> AsyncIterator[str]:
    """The store's address, for as long as it runs."""
    runner = web.AppRunner(store_application())
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 9000).start()
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:9000"
    finally:
        await runner.cleanup()


async def remove(client: HttpClient, workspace: str, *, deadline: float) -> None:
    """Removes what a test made, and waits until it is gone."""
    for resource in _KINDS:
        await _until(functools.partial(_gone, client, resource, workspace), deadline)


async def _gone(client: HttpClient, resource: Resource, workspace: str) -> str:
    try:
        await client.delete(resource, NAME, workspace)
        return f"{resource.kind} {NAME} is not gone yet"
    except ApiError as error:
        # 403: the webhook has not heard yet that nothing uses it any more.
        return "" if error.not_found else str(error)


async def called(
    http: aiohttp.ClientSession, url: str, client: HttpClient, workspace: str, *, token: Path | None
) -> str:
    """What is still wrong with a call through the gateway; empty when it was answered."""
    try:
        async with http.get(url, headers=_credentials(token)) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{url}: {type(error).__name__} {error}"
    if answer.status == 200 and body == CONTENT:
        return ""
    status = (await client.get(MODEL_DEPLOYMENTS, NAME, workspace)).get("status") or {}
    told = [
        f"{each['type']}={each['status']} {each['reason']}: {each['message']}"
        for each in status.get("conditions") or ()
    ]
    return f"{url}: {answer.status} {body[:500]!r}; {'; '.join(told)}"


def _credentials(token: Path | None) -> dict[str, str]:
    """Read anew for each call, since kubelets renew the file."""
    if token is None:
        return {}
    return {"X-Beamlit-Authorization": f"Bearer {token.read_text().strip()}"}


async def _until(step: Callable[[], Awaitable[str]], deadline: float) -> None:
    """Repeats a step until nothing is wrong any more.

    Raises:
        TestError: something still was when the time was over.
    """
    while problem := await step():
        if time.monotonic() > deadline:
            raise TestError(problem)
        await asyncio.sleep(0.5)


async def run(given: argparse.Namespace) -> None:
    """The whole test."""
    deadline = time.monotonic() + given.timeout
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=given.timeout))
    async with running_store(given.host) as store, session as http, await connect(None) as client:
        _say("removing what an earlier test left")
        await remove(client, given.workspace, deadline=deadline)
        secrets = given.pull_secret
        try:
            for each in objects(
                given.workspace, store=store, image=given.image, pull_secrets=secrets
            ):
                _say(f"creating {each['kind']} {given.workspace}/{NAME}")
                await client.create(_resource(each["kind"]), each)
            path = f"{given.workspace}/models/{NAME}/?environment={NAME}"
            url = f"{given.gateway.rstrip('/')}/{path}"
            _say(f"calling {url}, which wakes it")
            call = functools.partial(called, http, url, client, given.workspace)
            await _until(functools.partial(call, token=given.token_file), deadline)
            _say(f"answered after {time.monotonic() - deadline + given.timeout:.1f} seconds")
        finally:
            _say("removing all of it")
            await remove(client, given.workspace, deadline=time.monotonic() + 60)


def _resource(kind: str) -> Resource:
    (found,) = [each for each in _KINDS if each.kind == kind]
    return found


class _Answer(BaseHTTPRequestHandler):
    """The model server: what was fetched is what it answers."""

    folder: Path

    def do_GET(self) -> None:
        body = (self.folder / FILE).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: probes come every second."""


def serve(folder: Path) -> None:
    """Serves until it is ended."""
    _Answer.folder = folder
    HTTPServer((os.environ["POD_IP"], SERVER_PORT), _Answer).serve_forever()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The program; answers its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path, metavar="DIR", help="be the model server instead")
    parser.add_argument("--host", default=os.environ.get("POD_IP"), help="where the store listens")
    parser.add_argument("--workspace", help="where the objects are made")
    parser.add_argument("--gateway", help="the gateway's address")
    parser.add_argument("--image", help="this project's image")
    parser.add_argument("--token-file", type=Path, help="what the gateway asks callers for")
    parser.add_argument("--pull-secret", action="append", default=[], help="for it (repeatable)")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for all of it")
    given = parser.parse_args(arguments)
    if given.serve:
        serve(given.serve)
        return 0
    try:
        asyncio.run(run(given))
    except (TestError, ApiError) as error:
        _say(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
