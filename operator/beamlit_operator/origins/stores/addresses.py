"""Where no origin may lead: the addresses at which clouds give credentials away to whoever asks.

An origin's author says where a store is, and the operator asks it, from a pod that may reach what
the author may not. So every way to a store looks at the address that it is really connected to,
before anything is sent there: names, redirects and DNS answers that change make no difference.

| the address                                                  | what it is                        |
|--------------------------------------------------------------|-----------------------------------|
| 169.254.0.0/16, fe80::/10                                    | link-local: most clouds' metadata |
| 100.100.100.200, 168.63.129.16, 192.0.0.192                  | Alibaba's, Azure's, Oracle's      |
| fd00:ec2::/32, fd20:ce::254, fd00:42::42                     | AWS', Google's, Scaleway's        |
| one of IPv4 in an address of IPv6 (mapped, NAT64, 6to4)      | as the one in it                  |

Whoever reaches stores through a proxy has the proxy connect: then only addresses in a url, in
whatever way they are written, are seen here. What `nodeCredentials` asks is no store, and goes by
the SDK.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from beamlit_operator.origins.errors import invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REFUSED = tuple(
    ipaddress.ip_network(each)
    for each in (
        "169.254.0.0/16",
        "fe80::/10",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fd00:42::42/128",
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def check_host(host: str) -> None:
    """Looks at the host of a url; a name has no address yet.

    Raises:
        OriginError: ``InvalidReference``: it is an address that no origin may lead to.
    """
    address = _written(host.strip("[]"))
    if address is not None:
        _check(address, host)


def check_peer(connected: socket.socket, host: str) -> None:
    """Looks at what a host led to in the end, and closes the connection if it may not.

    Raises:
        OriginError: as above.
    """
    try:
        name = str(connected.getpeername()[0]).partition("%")[0]
        _check(ipaddress.ip_address(name), host)
    except BaseException:
        connected.close()
        raise


class Checked:
    """For connections of urllib3, before their own class: they look where they lead to."""

    host: str
    proxy: Any

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]  # urllib3's
        if self.proxy is None:
            check_peer(connected, self.host)
        return connected


def _written(host: str) -> Address | None:
    """The address that a text is; also as C libraries read it (`2852039166`, `0xa9.254.43518`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _check(address: Address, host: str) -> None:
    meant = _meant(address)
    if any(meant.version == each.version and meant in each for each in _REFUSED):
        raise invalid(
            f"{host} is a link-local address or one of a cloud's own ({meant}), where clouds keep "
            "their metadata: name another host"
        )


def _meant(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    # Of IPv6 that only carries IPv4; else the address itself.
    return inner or address
