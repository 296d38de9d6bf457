"""Ports and addresses of this machine that nobody else uses: neither another worker nor another
run of the tests, nor a cluster, nor whoever calls."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import socket

from beamlit_operator.devcluster.kubelet.addresses import Addresses

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.cycle(range(1_000))


def free_port() -> int:
    """A port of this worker's own, and below those that the system gives to outgoing connections
    (ip_local_port_range, ip(7)): nobody else takes it until it is listened at. Where a worker
    begins depends on its process, for another run of the tests on the same machine."""
    for port in (12_000 + _WORKER % 16 * 1_000 + (os.getpid() + turn) % 1_000 for turn in _PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("an endless cycle ended")


def fresh_address() -> str:
    """A loopback address of this process, in a block as clusters have them: no pod has it."""
    return _own_block().allocate()


@functools.cache
def _own_block() -> Addresses:
    block = Addresses()
    atexit.register(block.close)
    return block
