"""``python -m beamlit_operator.controllers``: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from beamlit_operator.controllers.heap import give_back
from beamlit_operator.controllers.operator import Operator
from beamlit_operator.controllers.options import Options, parse
from beamlit_operator.kube import connect
from beamlit_operator.kube.trust import trust_own_authorities
from beamlit_operator.logs import configure_logging

log = logging.getLogger("beamlit_operator.controllers")


async def serve(options: Options) -> int:
    """Runs until SIGTERM or SIGINT (0) or until a part of the operator fails (1)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)

    handle_signals()
    async with await connect(options.kubeconfig) as client:
        operator = Operator(client, options, own_signals=handle_signals)
        running = asyncio.create_task(operator.run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stop.is_set():
            running.cancel()
            await asyncio.wait({running}, timeout=5)
            log.info("stopped")
            return 0
        try:
            await running
        except* Exception as errors:
            for error in errors.exceptions:
                log.error("the operator ended: %s: %s", type(error).__name__, error)
        return 1


def main() -> None:
    """The entry point."""
    give_back(os.environ)
    options = parse()
    configure_logging(format_=options.log_format, level=options.log_level)
    if problem := trust_own_authorities(os.environ):
        log.error("%s", problem)
    sys.exit(asyncio.run(serve(options)))


if __name__ == "__main__":
    main()
