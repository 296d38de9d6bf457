"""References to a folder of a PersistentVolumeClaim: ``pvc://claim/path``. Pure.

The files are mounted and not fetched, and nobody but a pod can see them. So their revision is what
is known without them: which claim it is, which folder, and what a person calls its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from beamlit_operator.origins.errors import OriginError, invalid
from beamlit_operator.origins.listing import check_paths

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """A folder of a claim of the workspace.

    Attributes:
        claim: the PersistentVolumeClaim's name.
        path: the folder in it, relative; empty for the whole claim.
        revision: any text; another one says that the files are others.
        pinned: the immutable revision that it must be, if one was asked for.
    """

    claim: str
    path: str = ""
    revision: str = ""
    pinned: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.claim):
            raise invalid(f"claim name {self.claim!r} is not possible: use pvc://CLAIM/FOLDER")
        if self.path:
            try:
                check_paths([self.path], place=f"claim {self.claim}")
            except OriginError as problem:
                what = problem.message.rpartition(": ")[0]
                raise invalid(f"{what}: name a folder, relative, without ..") from None

    @property
    def uri(self) -> str:
        """The shortest uri that stands for it, without the revision."""
        return f"pvc://{self.claim}/{self.path}" if self.path else f"pvc://{self.claim}"

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        folder = f"folder {self.path} of " if self.path else ""
        return f"{folder}claim {self.claim}"

    @property
    def keeps_revisions(self) -> bool:
        """Whether another revision can be asked for: by its text, but not by its digest."""
        return not self.pinned

    def at(self, revision: str) -> ClaimRef:
        """The reference for one revision, where the store keeps several."""
        return self

    def identity(self, revision: str) -> str:
        """What a directory holds that has all files of the revision."""
        return f"{self.uri} {revision}"

    def digest(self, uid: str) -> str:
        """The immutable revision: ``sha256:`` and 64 hex digits over the compact JSON array
        ``[uid,path,revision]``. A claim that is made anew under its name has another uid."""
        line = json.dumps([uid, self.path, self.revision], separators=(",", ":"))
        return f"sha256:{hashlib.sha256(line.encode()).hexdigest()}"


def is_digest(version: str | None) -> bool:
    """Whether a deployment's version is an immutable revision and no text of a person's."""
    return version is not None and _DIGEST.fullmatch(version) is not None
