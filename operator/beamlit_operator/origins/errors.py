"""What can be wrong with an origin, and what follows from it.

The reason alone decides whether the Model counts as stalled (only a person can fix it) and when to
look again. That table stands here and nowhere else.

| reason                    | stalled | look again after               |
|---------------------------|---------|--------------------------------|
| InvalidReference          | yes     | 10 min                         |
| CredentialsInvalid        | yes     | 60 s                           |
| AccessDenied              | yes     | 60 s                           |
| NodeCredentialsNotAllowed | yes     | 10 min                         |
| BucketNotFound            | yes     | 15 s                           |
| WrongRegion               | yes     | 60 s                           |
| NoObjects                 | yes     | 15 s                           |
| RepoNotFoundOrNoAccess    | yes     | 60 s                           |
| Gated                     | yes     | 60 s                           |
| TokenInvalid              | yes     | 60 s                           |
| RevisionUnknown           | yes     | 60 s                           |
| UnsafePath                | yes     | 10 min                         |
| TooManyFiles              | yes     | 10 min                         |
| PickleNotAllowed          | yes     | 10 min                         |
| RateLimited               | no      | what the store asks, else 60 s |
| Unreachable               | no      | 15 s                           |
| Changed                   | no      | 5 s                            |
| Corrupt                   | no      | 5 s                            |
| BadArchive                | yes     | 10 min                         |
| LocalDisk                 | no      | 30 s                           |

A stalled origin is looked at again too: what is missing may appear in the store without any event
in the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class OriginReason(StrEnum):
    """Why an origin cannot be used."""

    INVALID_REFERENCE = "InvalidReference"
    """The reference itself cannot be right, such as an impossible bucket name."""
    CREDENTIALS_INVALID = "CredentialsInvalid"
    """The store does not know the key, or the signature made with it does not match."""
    NODE_CREDENTIALS_NOT_ALLOWED = "NodeCredentialsNotAllowed"
    """The origin asks for the node's identity, which the operator was not told to lend."""
    ACCESS_DENIED = "AccessDenied"
    """The credentials are known, but not allowed to list or read this."""
    BUCKET_NOT_FOUND = "BucketNotFound"
    """There is no bucket of this name at this endpoint."""
    WRONG_REGION = "WrongRegion"
    """The bucket lives in another region than the one named."""
    NO_OBJECTS = "NoObjects"
    """The place exists, but holds no file (that the patterns allow)."""
    REPO_NOT_FOUND_OR_NO_ACCESS = "RepoNotFoundOrNoAccess"
    """The Hub knows no such repository, or hides it from this token: it does not say which."""
    GATED = "Gated"
    """The repository's authors must grant access first."""
    TOKEN_INVALID = "TokenInvalid"  # noqa: S105 - a reason, not a token
    """The Hub does not accept the token."""
    REVISION_UNKNOWN = "RevisionUnknown"
    """The repository has no such branch, tag or commit."""
    UNSAFE_PATH = "UnsafePath"
    """A file's name would leave the directory, or clashes with another."""
    TOO_MANY_FILES = "TooManyFiles"
    """More files than a model can reasonably have: most likely the prefix is too short."""
    PICKLE_NOT_ALLOWED = "PickleNotAllowed"
    """The model's files can run code when they are loaded, and nobody said that they may."""
    RATE_LIMITED = "RateLimited"
    """The store asks to slow down."""
    UNREACHABLE = "Unreachable"
    """The store does not answer, or answers with an error of its own."""
    CHANGED = "Changed"
    """What the store holds is no longer the revision that was asked for."""
    CORRUPT = "Corrupt"
    """What arrived does not have the size or digest the store announced."""
    BAD_ARCHIVE = "BadArchive"
    """An archive cannot be unpacked: it is damaged, encrypted, or far larger than it looks."""
    LOCAL_DISK = "LocalDisk"
    """The directory to fetch into is full or cannot be written."""


_R = OriginReason
_STALLED_RETRY_SECONDS = {
    _R.INVALID_REFERENCE: 600.0,
    _R.CREDENTIALS_INVALID: 60.0,
    _R.ACCESS_DENIED: 60.0,
    _R.NODE_CREDENTIALS_NOT_ALLOWED: 600.0,
    _R.BUCKET_NOT_FOUND: 15.0,
    _R.WRONG_REGION: 60.0,
    _R.NO_OBJECTS: 15.0,
    _R.REPO_NOT_FOUND_OR_NO_ACCESS: 60.0,
    _R.GATED: 60.0,
    _R.TOKEN_INVALID: 60.0,
    _R.REVISION_UNKNOWN: 60.0,
    _R.UNSAFE_PATH: 600.0,
    _R.TOO_MANY_FILES: 600.0,
    _R.PICKLE_NOT_ALLOWED: 600.0,
    _R.BAD_ARCHIVE: 600.0,
}
_PASSING_RETRY_SECONDS = {
    _R.RATE_LIMITED: 60.0,
    _R.UNREACHABLE: 15.0,
    _R.CHANGED: 5.0,
    _R.CORRUPT: 5.0,
    _R.LOCAL_DISK: 30.0,
}

_LONGEST_STORE_DELAY_SECONDS = 900.0


class OriginError(Exception):
    """An origin cannot be used now.

    Attributes:
        reason: see :class:`OriginReason`; fit for a condition's reason.
        message: one line for people: what is wrong with what, and what to do. Never a secret.
        stalled: only a person can fix it.
        retry_after_seconds: when to look again.
    """

    def __init__(
        self,
        reason: OriginReason,
        message: str,
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.stalled = reason in _STALLED_RETRY_SECONDS
        usual = (_STALLED_RETRY_SECONDS | _PASSING_RETRY_SECONDS)[reason]
        asked = retry_after_seconds if retry_after_seconds is not None else usual
        self.retry_after_seconds = min(max(asked, 1.0), _LONGEST_STORE_DELAY_SECONDS)


def invalid(message: str) -> OriginError:
    """For references that cannot be right."""
    return OriginError(OriginReason.INVALID_REFERENCE, message)


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` of a store's answer, made fit for a message: one short line without ``secrets``, and
    without what would steer a terminal or turn the line around."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = "".join(each if each.isprintable() else "\ufffd" for each in " ".join(text.split()))
    return text if len(text) <= 300 else text[:297] + "..."
