"""Makes a Python program feel at home in a pod: its address is its own, its token is found.

In a container, 0.0.0.0 is the pod's own network. Here all pods share the machine's, so two servers
on port 8080 would collide and be reachable from other machines. Python imports this module by
itself at start when its folder is on PYTHONPATH. It covers sockets bound from Python, asyncio and
uvloop; programs that bind in C (gRPC) must be told their address by environment or argument.

Clients of the API server look for the pod's token under one path that is built into them. No volume
can be mounted there without privileges, so opening that path opens the pod's own folder.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # Every Python program of a pod pays for what is imported here.
if TYPE_CHECKING:
    from typing import Any

_ADDRESS = os.environ.get("BEAMLIT_BIND_ADDRESS", "")
_ANY = ("", "0.0.0.0", "::", None)  # noqa: S104
_ACCOUNT = os.environ.get("BEAMLIT_SERVICE_ACCOUNT", "")
_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def _patch_socket() -> None:
    import socket

    plain_bind = socket.socket.bind
    plain_getaddrinfo = socket.getaddrinfo

    def bind(self: Any, address: Any) -> None:
        if isinstance(address, tuple) and len(address) >= 2 and address[0] in _ANY:
            if self.family == socket.AF_INET:
                address = (_ADDRESS, address[1])
            elif self.family == socket.AF_INET6:
                # An IPv6 socket reaches an IPv4 address in its mapped form.
                self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                address = ("::ffff:" + _ADDRESS, *address[1:])
        plain_bind(self, address)

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        # Asked in order to listen: answer with one address, else servers bind it twice.
        if flags & socket.AI_PASSIVE and host in _ANY:
            host, family = _ADDRESS, socket.AF_INET
        return plain_getaddrinfo(host, port, family, type, proto, flags)

    socket.socket.bind = bind  # type: ignore[method-assign]
    socket.getaddrinfo = getaddrinfo


def _account_file(path: Any) -> Any:
    """The file that stands for ``path``; most paths are their own."""
    try:
        text = os.fspath(path)
    except TypeError:  # A file descriptor.
        return path
    if not isinstance(text, str) or not text.startswith(_ACCOUNT_PATH):
        return path
    return _ACCOUNT + text[len(_ACCOUNT_PATH) :]


def _patch_files() -> None:
    import builtins
    import io

    plain_open, plain_stat = builtins.open, os.stat

    def open(file: Any, *args: Any, **options: Any) -> Any:
        return plain_open(_account_file(file), *args, **options)

    def stat(path: Any, **options: Any) -> Any:
        return plain_stat(_account_file(path), **options)

    builtins.open = io.open = open
    os.stat = stat
    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if plain_stat in able:
            able.add(stat)


def _patch_ssl(module: Any) -> None:
    plain = module.SSLContext.load_verify_locations

    def load_verify_locations(
        self: Any, cafile: Any = None, capath: Any = None, cadata: Any = None
    ) -> None:
        plain(self, cafile if cafile is None else _account_file(cafile), capath, cadata)

    module.SSLContext.load_verify_locations = load_verify_locations


def _patch_uvloop(module: Any) -> None:
    """Wraps ``uvloop.Loop.create_server``: it binds in C."""
    plain = module.Loop.create_server

    def create_server(
        self: Any, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if host in _ANY and not any(options.get(k) for k in ("sock", "fd")):
            host = _ADDRESS if port is not None else host
        return plain(self, factory, host, port, **options)

    module.Loop.create_server = create_server


class _Finder:
    """Patches a module once it is imported; until then it costs nothing."""

    def __init__(self, name: str, patch: Any) -> None:
        self._name = name
        self._patch = patch

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            self._patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _run_next() -> None:
    """Another sitecustomize further down the path, which this one hides, still gets its turn."""
    import importlib.machinery
    import importlib.util

    own = os.path.dirname(os.path.abspath(__file__))
    rest = [entry for entry in sys.path if os.path.abspath(entry or ".") != own]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if _ADDRESS:
    _patch_socket()
    sys.meta_path.insert(0, _Finder("uvloop", _patch_uvloop))
if _ACCOUNT:
    _patch_files()
    sys.meta_path.insert(0, _Finder("ssl", _patch_ssl))
_run_next()
