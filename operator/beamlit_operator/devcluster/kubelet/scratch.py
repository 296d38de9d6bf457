"""A short-named folder for a container's temporary files.

A pod's own folder has a long name, and programs put Unix sockets under ``TMPDIR``, whose whole path
may have 107 bytes: Python's multiprocessing (and with it MLServer's workers) fails beyond that.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path


def folder_of(uid: str) -> Path:
    """Where the temporary files of a pod are."""
    return Path(tempfile.gettempdir(), f"beamlit-pod-{uid[:13]}")


def create(uid: str, container: str, *, otherwise: Path) -> Path:
    """The folder of one container; ``otherwise`` when somebody else took the name.

    The system's folder for temporary files is everybody's: what is there under our name counts
    only when it is a folder of ours that nobody else can write to.
    """
    home = folder_of(uid)
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not ours or found.st_mode & 0o077:
            raise PermissionError(home)
        folder = home / container
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        otherwise.mkdir(parents=True, exist_ok=True)
        return otherwise
    return folder


def remove(uid: str) -> None:
    """Removes everything a pod left there."""
    shutil.rmtree(folder_of(uid), ignore_errors=True)
