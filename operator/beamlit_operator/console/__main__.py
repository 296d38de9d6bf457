"""``python -m beamlit_operator.console``: serves the page until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import signal
import sys

from aiohttp import web
from kubernetes.aio.config import ConfigException

from beamlit_operator.console.board import Board
from beamlit_operator.console.server import HOST, application
from beamlit_operator.kube import connect


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="beamlit console", description=__doc__)
    parser.add_argument("--kubeconfig", help="the cluster, as for kubectl")
    parser.add_argument("--namespace", help="show only this workspace")
    parser.add_argument("--port", type=int, default=8090, help="0: any free one")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        OSError: the port is taken, or the kubeconfig cannot be read.
        ConfigException: there is no usable kubeconfig.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(await connect(options.kubeconfig))
        board = await stack.enter_async_context(
            Board(client, namespace=options.namespace).running()
        )
        # Open pages would otherwise hold the end up: their streams never finish.
        runner = web.AppRunner(application(board), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, HOST, options.port)
        await site.start()
        port = runner.addresses[0][1]
        print(f"http://{HOST}:{port}  (read-only; Ctrl-C ends it)", flush=True)
        await ended.wait()


def main() -> int:
    """The program; answers its exit status."""
    options = parse_arguments()
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(options))
    except ConfigException as error:
        print(f"beamlit console: no cluster to talk to: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        print(f"beamlit console: {error.strerror or error}{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
