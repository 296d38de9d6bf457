"""Paths inside a container, on a machine without containers.

A container sees its volumes at mount paths such as ``/mnt/models``. A local process does not: the
volume is a folder of the pod. So every mention of a mount path in command, arguments, working
directory and environment values is replaced by that folder. This works everywhere without
privileges, with one limit: a path that a program has built in, or reads from a file, is not
replaced. For such programs ``BEAMLIT_MOUNT_<n>`` holds the folder of the n-th volume mount.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class PathMap:
    """Mount paths and what stands for them, in the order of the container's volume mounts."""

    mounts: Sequence[tuple[str, str]]

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        paths = sorted({path for path, _ in self.mounts if path.rstrip("/")}, key=len)[::-1]
        if not paths:
            return None
        alternatives = "|".join(re.escape(path.rstrip("/")) for path in paths)
        # A whole path only: not the end of a longer one (s3://bucket/mnt/models), unless it is a
        # file URL; and not the beginning of a longer name (/mnt/models-old).
        return re.compile(rf"(?:(?<![\w.\-/~])|(?<=file://))({alternatives})(?![\w\-]|\.\w)")

    def rewrite(self, text: str) -> str:
        """``text`` with every mount path replaced by its folder."""
        if self._pattern is None:
            return text
        folders = {path.rstrip("/"): folder for path, folder in self.mounts}
        return self._pattern.sub(lambda found: folders[found[1]], text)

    def variables(self) -> dict[str, str]:
        """``BEAMLIT_MOUNT_0`` and so on."""
        return {f"BEAMLIT_MOUNT_{number}": folder for number, (_, folder) in enumerate(self.mounts)}
