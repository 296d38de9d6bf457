"""State that survives a restart: an append-only journal, compacted when opened and when large.

One line per change, written before the change is announced. The operating system has it at once,
so it survives the process; a machine that loses power may lose the last moments.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, unquote

from beamlit_operator.devcluster.apiserver.store import Event, Journal, Key, Store

log = logging.getLogger(__name__)

LARGEST: Final = 64 * 1024 * 1024
"""Bytes a journal may have before it is worth compacting."""

_HEADER: Final = b"beamlit devcluster journal 1\n"


class FileJournal(Journal):
    """A journal in one file. The lines are

    ``P resource namespace name version json`` and ``D resource namespace name version``,
    with ``-`` for no namespace and names percent-encoded (those of roles may hold anything).
    """

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        """``largest`` is the least size in bytes at which it is compacted while in use."""
        self._path = path
        self._largest = largest
        self._limit = largest
        self._size = 0
        self._store: Store | None = None
        self._file: BinaryIO | None = None

    def open(self, store: Store) -> None:
        """Reads what is there into ``store``, and starts a compacted file."""
        if self._path.exists():
            self._load(store)
        store.forget_before()
        self._store = store
        self._compact(store)

    def _compact(self, store: Store) -> None:
        """Replaces the file by one that has only what is in the store now."""
        self.close()
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(_HEADER)
            file.write(b"V - - - %d\n" % store.version)
            for collection in store.collections:
                for entry in collection.objects.values():
                    encoded = entry.encoded(entry.obj["apiVersion"])
                    file.write(_put(collection.resource, entry.key, entry.version, encoded))
        temporary.replace(self._path)
        self._path.chmod(0o600)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
        self._limit = max(self._largest, 4 * self._size)

    def _load(self, store: Store) -> None:
        with self._path.open("rb") as file:
            if file.readline() != _HEADER:
                raise ValueError(
                    f"{self._path} was not written by this version of the embedded cluster; "
                    "remove the data directory to start anew"
                )
            for line in file:
                if not line.endswith(b"\n"):
                    log.warning("the last line of %s is torn and is dropped", self._path)
                    break
                self._replay(store, line)

    def _replay(self, store: Store, line: bytes) -> None:
        operation, resource, namespace, name, rest = line.rstrip(b"\n").split(b" ", 4)
        key = Key("" if namespace == b"-" else namespace.decode(), unquote(name.decode()))
        if operation == b"V":
            store.version = max(store.version, int(rest))
        elif operation == b"P":
            version, _, encoded = rest.partition(b" ")
            store.restore(resource.decode(), key, json.loads(encoded), int(version))
        elif operation == b"D":
            collection = store.collection(resource.decode())
            if key in collection.objects:
                collection.drop(key)
            store.version = max(store.version, int(rest))

    def write(self, resource: str, event: Event) -> None:
        """Appends one change."""
        assert self._file is not None
        assert self._store is not None
        if self._size > self._limit:
            # The store does not have this change yet; its line follows below.
            self._compact(self._store)
        entry = event.entry
        if event.type == "DELETED":
            namespace = entry.key.namespace or "-"
            line = f"D {resource} {namespace} {quote(entry.key.name)} {entry.version}\n".encode()
        else:
            line = _put(resource, entry.key, entry.version, entry.encoded(entry.obj["apiVersion"]))
        self._file.write(line)
        self._size += len(line)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _put(resource: str, key: Key, version: int, encoded: bytes) -> bytes:
    head = f"P {resource} {key.namespace or '-'} {quote(key.name)} {version} ".encode()
    return head + encoded + b"\n"
