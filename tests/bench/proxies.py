"""The proxies a gateway is compared with: one route, one backend, one thread, on a port each.

nginx and HAProxy are measured where they are installed (Debian: ``nginx-light``, ``haproxy``).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from aiohttp import web
from tests.bench.gatewaystage import (
    PROXY_CORE,
    envoy,
    free_port,
    listener,
    pin,
    process,
    wait_for,
)

NGINX = """
daemon off; worker_processes 1; master_process off; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream pods {{ server {host}:{upstream}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://pods; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 2s
  timeout client 1m
  timeout server 1m
  http-reuse always
frontend callers
  bind 127.0.0.1:{port}
  default_backend pods
backend pods
  server pod {host}:{upstream}
"""


def static_envoy(folder: Path, upstream: tuple[str, int], port: int) -> list[str | Path]:
    """The same Envoy with one static route and nothing else."""
    address = {"socket_address": {"address": upstream[0], "port_value": upstream[1]}}
    cluster = {
        "name": "pods",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": "pods",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    route = {"route": {"cluster": "pods", "timeout": "0s"}}
    resources = {"listeners": [listener(port, route)], "clusters": [cluster]}
    return envoy({"static_resources": resources}, folder, "static")


def commands(
    folder: Path, upstream: tuple[str, int]
) -> Iterator[tuple[str, int, list[str | Path]]]:
    """Name, port and command of each that can run here."""
    host, backend = upstream
    port = free_port()
    yield "Envoy, one static route", port, static_envoy(folder, upstream, port)
    for name, program, template, options in (
        ("nginx", "nginx", NGINX, ["-c"]),
        ("HAProxy", "haproxy", HAPROXY, ["-f"]),
    ):
        binary = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if binary is not None:
            port = free_port()
            config = folder / f"{program}.conf"
            config.write_text(
                template.format(folder=folder, host=host, upstream=backend, port=port)
            )
            yield name, port, [binary, *options, config]
    port = free_port()
    program = [sys.executable, "-m", "tests.bench.proxies", str(port), f"http://{host}:{backend}"]
    yield "aiohttp", port, list(program)


@contextlib.contextmanager
def baselines(folder: Path, upstream: tuple[str, int]) -> Iterator[dict[str, tuple[str, int]]]:
    """Runs all of them; answers their addresses and process ids by name."""
    with contextlib.ExitStack() as stack:
        found: dict[str, tuple[str, int]] = {}
        for name, port, command in commands(folder, upstream):
            # They complain of callers that leave at the end of a round.
            running = stack.enter_context(process(command, stderr=subprocess.DEVNULL))
            wait_for(f"http://127.0.0.1:{port}/", running)
            pin(running.pid, PROXY_CORE)
            found[name] = f"http://127.0.0.1:{port}", running.pid
        yield found


def relay(upstream: str) -> web.Application:
    """A reverse proxy as one writes it with aiohttp."""

    async def session(app: web.Application) -> object:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as client:
            app["client"] = client
            yield

    async def forward(request: web.Request) -> web.StreamResponse:
        body = request.content if request.can_read_body else None
        async with request.app["client"].request(
            request.method, upstream + request.raw_path, headers=request.headers, data=body
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=answer.headers)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    app = web.Application()
    app.cleanup_ctx.append(session)  # type: ignore[arg-type]
    app.router.add_route("*", "/{rest:.*}", forward)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    given = parser.parse_args()
    web.run_app(
        relay(given.upstream), host="127.0.0.1", port=given.port, access_log=None, print=None
    )
