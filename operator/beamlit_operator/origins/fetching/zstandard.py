"""Reads files that are compressed with Zstandard (RFC 8878): BuildKit and zstd:chunked make them.

| the file                                             | what happens                         |
|------------------------------------------------------|--------------------------------------|
| one frame, several, or frames that hold nothing      | read, one after the other            |
| a frame that needs more than 128 MiB to be read      | refused: ``zstd -d`` does so, too    |
| cut off, damaged, or something else                  | refused                              |
| a checksum that is not that of the content           | refused                              |

Nothing is read ahead: how much comes out is up to whoever reads.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_WINDOW_LOG = 27
"""128 MiB: what decompressors take by default, and more than any level below `--ultra` asks for."""


class ZstandardError(ValueError):
    """The file cannot be read."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file.

    Raises:
        ZstandardError: also while it is read. One that is cut off: ``EOFError``.
    """
    zstd = _library()
    limit = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    try:
        with zstd.open(path, "rb", options=limit) as content:
            yield content
    except zstd.ZstdError:
        raise ZstandardError from None


def _library() -> Any:
    # Imported when it is needed: most fetches have no such file, and every cold start waits.
    newer = sys.version_info >= (3, 14)
    return importlib.import_module("compression.zstd" if newer else "backports.zstd")
