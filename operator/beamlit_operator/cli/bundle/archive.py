"""Writes files into a .tar.gz, readable by its owner only."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path


def write(target: Path, files: Mapping[str, str], *, folder: str, at: float) -> int:
    """Writes the archive, whole or not at all; returns its size in bytes.

    Args:
        target: the file to make.
        files: texts by their paths.
        folder: the one folder in the archive that everything is in.
        at: the time of the files, in seconds since 1970.

    Raises:
        FileExistsError: the file is there already.
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in sorted(files.items()):
            data = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size, entry.mtime, entry.mode = len(data), int(at), 0o600
            archive.addfile(entry, io.BytesIO(data))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.getvalue())
    return len(content.getvalue())
