"""Ports of this machine: which are free, and what answers on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import aiohttp

from beamlit_operator.cli.errors import CommandError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, what: str, flag: str | None) -> None:
    if not is_free(port):
        hint = f"choose another with {flag}" if flag else "end what uses it"
        raise CommandError(f"{what} needs {LOOPBACK}:{port}, which is taken: {hint}")


def free_port(wanted: int) -> int:
    """The wanted port, or the next that is free; 0 asks for any."""
    if wanted == 0:
        return free_ports(1)[0]
    for port in range(wanted, min(wanted + 100, 65536)):
        if is_free(port):
            return port
    raise CommandError(f"no port from {wanted} to {wanted + 99} is free: use --gateway-port")


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


async def until_answers(url: str, *, what: str, within: float) -> None:
    """Waits until the URL answers with a success."""
    deadline = time.monotonic() + within
    last = "no answer"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status < 300:
                        return
                    last = f"{answer.status} {(await answer.text())[:200]}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                raise CommandError(f"{what} was not ready within {within:g} s: {last}")
            await asyncio.sleep(0.05)
