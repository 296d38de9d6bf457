"""Xet: how the Hub stores large files, and the library (`hf_xet`) that puts them together again.

A file is a row of chunks that lie in larger objects, shared with other files and versions. The Hub
names a file's hash; the store behind it (CAS) says which objects to fetch and where they are; the
library fetches, decompresses and joins. It is asked for ranges, so a killed fetch goes on with what
is missing, which the Hub's own library cannot with Xet: that begins each file anew.

| the answer of the Hub                   | where the file comes from                            |
|-----------------------------------------|------------------------------------------------------|
| names no Xet hash                       | plain HTTP                                           |
| names one                               | Xet                                                  |
| names a token address of another host   | plain HTTP: our token would go there                 |
| any, and `HF_HUB_DISABLE_XET` is set    | plain HTTP                                           |
| any, with authorities of one's own      | plain HTTP: the library knows the public ones only   |
| Xet fails                               | plain HTTP, which the Hub offers for the same file   |

By itself the library takes up to 1.5 GB (6 GB for many files) of memory for what it has fetched and
not written, more than many a fetching container has; the limits here are its own settings.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from beamlit_operator.origins.stores.trust import AUTHORITIES

_MIB = 2**20
_LIMITS: Mapping[str, Any] = {
    "reconstruction.download_buffer_size": 64 * _MIB,
    "reconstruction.download_buffer_perfile_size": 16 * _MIB,
    "reconstruction.download_buffer_limit": 64 * _MIB,
    "reconstruction.min_prefetch_buffer": 16 * _MIB,
    "reconstruction.min_reconstruction_fetch_size": 16 * _MIB,
    "reconstruction.max_reconstruction_fetch_size": 64 * _MIB,
    "client.ac_initial_download_concurrency": 8,
    "client.ac_max_download_concurrency": 8,
    # Plain HTTP takes over soon when the store of Xet cannot be reached.
    "client.retry_max_attempts": 2,
    "client.retry_base_delay": timedelta(seconds=0.5),
    "client.connect_timeout": timedelta(seconds=5),
    "client.read_timeout": timedelta(seconds=30),
    # What is fetched in a cluster is nobody else's concern.
    "telemetry.enabled": False,
}


@dataclass(frozen=True, slots=True)
class XetFile:
    """A file in Xet's storage: its hash, its size, and the Hub's address for a token."""

    hash: str
    size: int
    token_url: str


class XetFailedError(Exception):
    """The file cannot be had by Xet now."""


def is_usable(credentials: Mapping[str, str]) -> bool:
    """Whether Xet may be tried at all."""
    own_authorities = AUTHORITIES in credentials or os.environ.get("BEAMLIT_CA_FILE")
    # The wheel is not made for every platform.
    is_there = importlib.util.find_spec("hf_xet") is not None
    return is_there and not constants.HF_HUB_DISABLE_XET and not own_authorities


class Xet:
    """The files of one repository. Safe to share between threads."""

    def __init__(self, token: str | None) -> None:
        self._headers = build_hf_headers(token=token or False)
        self._lock = threading.Lock()
        self._session: Any = None
        self._groups: dict[str, Any] = {}

    def read(self, file: XetFile, start: int, end: int) -> Iterator[bytes]:
        """The content from ``start`` to before ``end``, in order.

        Raises:
            XetFailedError: it cannot be had.
        """
        import hf_xet

        library: Any = hf_xet  # it tells no types
        try:
            group = self._group(file.token_url)
            info = library.XetFileInfo(file.hash, file.size)
            yield from group.download_stream(info, start=start, end=end)
        except (RuntimeError, OSError, ValueError) as error:
            raise XetFailedError(type(error).__name__) from None

    def close(self) -> None:
        """Ends what is under way."""
        with self._lock:
            for group in self._groups.values():
                group.abort()
            self._groups.clear()

    def _group(self, token_url: str) -> Any:
        import hf_xet

        library: Any = hf_xet
        with self._lock:
            if self._session is None:
                limits = library.XetConfig().with_config(dict(_LIMITS))
                self._session = library.XetSession(limits)
            if token_url not in self._groups:
                self._groups[token_url] = self._session.new_download_stream_group(
                    token_refresh_url=token_url, token_refresh_headers=self._headers
                )
            return self._groups[token_url]
