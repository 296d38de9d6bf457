"""References to origins, and their written form.

``s3://bucket/prefix`` names everything under a prefix (or one object) of an S3-compatible store;
``hf://org/name@revision`` a repository of a Hugging Face Hub; files on web servers are in
:mod:`.webref`, registries in :mod:`.ociref`, folders of claims in :mod:`.claimref`. Each kind is a
class with the same five words: ``uri``, ``place``, ``keeps_revisions``, ``at`` and ``identity``;
who reads and fetches it stands in :mod:`.kinds`. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit

from beamlit_operator.origins.claimref import ClaimRef
from beamlit_operator.origins.errors import invalid
from beamlit_operator.origins.ociref import OciRef
from beamlit_operator.origins.webref import WebRef

DEFAULT_HUB_ENDPOINT = "https://huggingface.co"
DEFAULT_HUB_REVISION = "main"

# S3's rules for bucket names, loosened to what compatible stores allow (capitals, underscores).
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# huggingface_hub.utils.validate_repo_id; a canonical model of the early days has no organisation.
_REPO = re.compile(
    r"(?!.*(--|\.\.))([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
)
# RFC 3339, section 5.6, without leap seconds.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class S3Ref:
    """A prefix, or a single object, in a bucket.

    Attributes:
        bucket: the bucket's name.
        prefix: without slashes at its ends; empty for the whole bucket.
        endpoint: URL of the store; ``None`` is AWS.
        region: ``None`` is us-east-1, from where AWS redirects.
        addressing_style: where the bucket stands in requests: ``path``, ``virtual`` (the host
            name), or ``auto``.
        versioned: the bucket keeps versions, and what is there now is pinned by them.
        version_id: one version of the one object that the prefix names.
        as_of: the versions that were the latest at this time (RFC 3339).
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing_style: str = "auto"
    versioned: bool = False
    version_id: str | None = None
    as_of: str | None = None

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise invalid(f"bucket name {self.bucket!r} is not possible: use s3://BUCKET/PREFIX")
        if self.addressing_style not in ("auto", "path", "virtual"):
            raise invalid(f"addressing style {self.addressing_style!r}: use auto, path or virtual")
        if self.as_of is not None and not is_time(self.as_of):
            raise invalid(f"{self.as_of!r} is no time: use RFC 3339, such as 2026-01-31T12:00:00Z")
        if self.version_id is not None and not self.prefix:
            raise invalid("versionId needs a uri that names one object: s3://BUCKET/KEY")
        if self.version_id is not None and (self.versioned or self.as_of is not None):
            raise invalid("versionId names one version of one object: no time can be named too")
        _check_endpoint(self.endpoint)

    @property
    def uri(self) -> str:
        """The shortest uri that stands for it, without the endpoint."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        return _place(self.uri, self.endpoint)

    @property
    def keeps_versions(self) -> bool:
        """Whether versions are asked for, and not what is there now."""
        return self.versioned or self.as_of is not None or self.version_id is not None

    @property
    def keeps_revisions(self) -> bool:
        """Whether the store can be asked for another revision than the one it has now."""
        return False

    def at(self, revision: str) -> S3Ref:
        """The reference for one revision, where the store keeps several."""
        return self

    def identity(self, revision: str) -> str:
        """What a directory holds that has all files of the revision."""
        return f"{self.uri} {revision}"


def is_time(text: str) -> bool:
    """Whether a text is a time of RFC 3339, with seconds and a zone."""
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repository of models at a revision.

    Attributes:
        repo: ``organisation/name``.
        revision: branch, tag or commit.
        endpoint: URL of the Hub; ``None`` is huggingface.co.
        allow_patterns: only files that match one of these (shell patterns); empty is all.
        ignore_patterns: never files that match one of these.
    """

    repo: str
    revision: str = DEFAULT_HUB_REVISION
    endpoint: str | None = None
    allow_patterns: tuple[str, ...] = ()
    ignore_patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise invalid(f"repository {self.repo!r} is not possible: use ORGANISATION/NAME")
        if not self.revision:
            raise invalid(f"revision of repository {self.repo!r} is empty: use a branch or commit")
        _check_endpoint(self.endpoint)

    @property
    def url(self) -> str:
        """The repository's page, for people."""
        return f"{(self.endpoint or DEFAULT_HUB_ENDPOINT).rstrip('/')}/{self.repo}"

    @property
    def uri(self) -> str:
        """The shortest uri that stands for it, without endpoint and patterns."""
        at = "" if self.revision == DEFAULT_HUB_REVISION else f"@{self.revision}"
        return f"hf://{self.repo}{at}"

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        return _place(self.uri, self.endpoint)

    @property
    def keeps_revisions(self) -> bool:
        """Whether the store can be asked for another revision than the one it has now."""
        return True

    def at(self, revision: str) -> HubRef:
        """The reference for one revision, where the store keeps several."""
        return replace(self, revision=revision)

    def identity(self, revision: str) -> str:
        """What a directory holds that has all files of the revision."""
        patterns = f"{sorted(self.allow_patterns)} {sorted(self.ignore_patterns)}"
        return f"{self.at(revision).uri} {patterns}"


OriginRef = S3Ref | HubRef | WebRef | OciRef | ClaimRef


def format_uri(ref: OriginRef) -> str:
    """The shortest uri that stands for ``ref``, without endpoint and patterns."""
    return ref.uri


def _place(uri: str, endpoint: str | None) -> str:
    return f"{uri} at {endpoint}" if endpoint else uri


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        parts, usable = None, False
    if parts is not None and (parts.username or parts.password):
        # Not repeated in the message: it holds a password.
        raise invalid("endpoint holds a user name or password: put credentials into the Secret")
    if not usable:
        raise invalid(f"endpoint {endpoint!r} is not a URL: use https://HOST[:PORT]")
