"""Loopback addresses for pods: each its own, none shared with another cluster on this machine."""

from __future__ import annotations

import errno
import random
import socket

CLAIM_PORT = 40_404
"""UDP port that is bound on a block's last address for as long as the block is in use."""

HOST_ADDRESS = "127.0.0.1"


class AddressError(RuntimeError):
    """No address is to be had; the message says why."""


class Addresses:
    """Hands out addresses of one block 127.x.0.0/16.

    127.0.0.0/16 is left alone: programs and resolvers use 127.0.0.x and 127.0.1.1. The claim on
    the block is a bound socket, so it ends with the process however that ends. An address is
    handed out again only after all others: a client that has not heard yet that a pod is gone
    must not reach another one under its address.
    """

    def __init__(self) -> None:
        self._claim, self._block = _claim_block()
        self._last = 0
        self._in_use: set[str] = set()

    def allocate(self) -> str:
        """An address nobody has.

        Raises:
            AddressError: all are in use.
        """
        for _ in range(255 * 254):
            self._last = self._last % (255 * 254) + 1
            third, fourth = divmod(self._last - 1, 254)
            address = f"127.{self._block}.{third}.{fourth + 1}"
            if address not in self._in_use:
                self._in_use.add(address)
                return address
        raise AddressError(f"all addresses of 127.{self._block}.0.0/16 are in use")

    def release(self, address: str) -> None:
        """Gives an address back."""
        self._in_use.discard(address)

    def close(self) -> None:
        """Gives the block back."""
        self._claim.close()


def _claim_block() -> tuple[socket.socket, int]:
    blocks = list(range(1, 255))
    random.shuffle(blocks)
    for block in blocks:
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((f"127.{block}.255.254", CLAIM_PORT))
        except OSError as error:
            claim.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise AddressError(
                    f"127.{block}.255.254 is not an address of this machine: the embedded cluster "
                    "needs all of 127.0.0.0/8 on the loopback interface, as on Linux"
                ) from error
            continue
        return claim, block
    raise AddressError("every block of loopback addresses is in use by another cluster")
