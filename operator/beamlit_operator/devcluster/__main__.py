"""``python -m beamlit_operator.devcluster``: the embedded cluster in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

from beamlit_operator.devcluster.apiserver.authorization import MODES
from beamlit_operator.devcluster.cluster import DevCluster, Options
from beamlit_operator.devcluster.controllers.horizontal_loop import SYNC_SECONDS
from beamlit_operator.devcluster.images.table import TableError
from beamlit_operator.devcluster.kubelet import nodes


def parse(arguments: list[str] | None = None) -> tuple[Options, str]:
    """Command line to options and log level."""
    parser = argparse.ArgumentParser(
        prog="python -m beamlit_operator.devcluster",
        description="A Kubernetes for laptops, demos and tests: never for production.",
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="state, pods, kubeconfig")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any)")
    parser.add_argument(
        "--authorization",
        default="AlwaysAllow",
        choices=MODES,
        help="who may do what: everybody with a token everything (default), or as roles say",
    )
    parser.add_argument(
        "--access-log",
        type=Path,
        help="write to this file every kind of request that a user makes, once",
    )
    parser.add_argument(
        "--audit-log",
        type=Path,
        help="write to this file every request that could change something",
    )
    parser.add_argument("--nodes", type=Path, default=nodes.DEFAULT, help="YAML file of nodes")
    parser.add_argument(
        "--images", type=Path, action="append", default=[], help="YAML file of images (repeatable)"
    )
    parser.add_argument(
        "--autoscaler-sync",
        type=float,
        default=SYNC_SECONDS,
        metavar="SECONDS",
        help="how often HorizontalPodAutoscalers look at their metrics (default: %(default)g)",
    )
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning"))
    found = parser.parse_args(arguments)
    options = Options(
        found.data_dir.absolute(),
        found.address,
        found.port,
        found.nodes,
        tuple(found.images),
        authorization=found.authorization,
        access_log=found.access_log,
        audit_log=found.audit_log,
        autoscaler_sync=found.autoscaler_sync,
    )
    return options, found.log_level


YOUNG, RARELY = 20_000, (50, 50)
"""When Python looks for circles of garbage: after so many new containers, and among the older ones
after so many such looks. The store is millions of containers that hold no circle, and to walk
through all of them, as is usual after some thousands of new ones, was a quarter of what a write
cost. What is replaced goes at once, by its count of references."""


async def serve(options: Options) -> None:
    """Runs until SIGTERM or SIGINT; a second signal changes nothing, the stop is short anyway."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with DevCluster(options) as cluster:
        print(f"ready: export KUBECONFIG={options.kubeconfig}", flush=True)
        waiting = asyncio.create_task(cluster.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if waiting.done():
            await waiting
        waiting.cancel()


def main() -> int:
    """Returns the exit code."""
    options, level = parse()
    gc.set_threshold(YOUNG, *RARELY)
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        asyncio.run(serve(options))
    except (nodes.NodesError, TableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
