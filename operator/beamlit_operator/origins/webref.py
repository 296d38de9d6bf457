"""References to files on web servers, each with its digest. Pure.

There is no listing to ask for, and what a URL leads to may change at any time: so the digests are
part of the reference, and the revision is made of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from beamlit_operator.origins.errors import OriginError, invalid
from beamlit_operator.origins.listing import check_paths

MAX_FILES = 256

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file.

    Attributes:
        url: where it is; http or https, without a user name.
        sha256: its digest, 64 hex digits.
        path: where it goes; empty for the last part of the url's path.
    """

    url: str
    sha256: str
    path: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            parts, usable = urlsplit(""), False
        if parts.username or parts.password:
            # Not repeated in the message: it holds a password.
            raise invalid("a url holds a user name or password: put credentials into the Secret")
        if not usable or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise invalid(f"url {without_query(self.url)!r} is not one: use https://HOST/FILE")
        digest = self.sha256.lower()
        if not _SHA256.fullmatch(digest):
            raise invalid(
                f"sha256 of {without_query(self.url)} is not 64 hex digits: take what sha256sum"
                " prints for the file"
            )
        object.__setattr__(self, "sha256", digest)
        if not self.path:
            name = unquote(parts.path.rpartition("/")[2])
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise invalid(
                    f"url {without_query(self.url)} ends in no file name: set path for its file"
                )
            object.__setattr__(self, "path", name)


@dataclass(frozen=True, slots=True)
class WebRef:
    """The files of a model on web servers."""

    files: tuple[WebFile, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.files) <= MAX_FILES:
            raise invalid(f"{len(self.files)} files: name 1 to {MAX_FILES}")
        try:
            check_paths((file.path for file in self.files), place=self.place)
        except OriginError as problem:
            what = problem.message.rpartition(": ")[0]
            raise invalid(f"{what}: correct the path of its file") from None

    @property
    def revision(self) -> str:
        """``sha256:`` and 64 hex digits: SHA-256 over one line per file, ordered by the UTF-8 bytes
        of its path: the compact JSON array ``[path,sha256]`` (non-ASCII escaped) and a newline. So
        files that move to another server are the same revision."""
        digest = hashlib.sha256()
        for file in sorted(self.files, key=lambda each: each.path.encode()):
            line = json.dumps([file.path, file.sha256], separators=(",", ":"))
            digest.update(line.encode() + b"\n")
        return f"sha256:{digest.hexdigest()}"

    @property
    def uri(self) -> str:
        """The first file's url without its query, which may hold a signature."""
        return without_query(self.files[0].url)

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        more = len(self.files) - 1
        return self.uri if not more else f"{self.uri} and {more} more"

    @property
    def keeps_revisions(self) -> bool:
        """Whether the store can be asked for another revision than the one it has now."""
        return False

    def at(self, revision: str) -> WebRef:
        """The reference for one revision, where the store keeps several."""
        return self

    def identity(self, revision: str) -> str:
        """What a directory holds that has all files of the revision."""
        return f"web {revision}"


def without_query(url: str) -> str:
    """The url as messages name it: what follows a question mark may be a signature."""
    return url.partition("?")[0].partition("#")[0]
