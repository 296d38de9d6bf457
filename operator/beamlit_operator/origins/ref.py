"""References to origins, and their written form.

``s3://bucket/prefix`` names everything under a prefix (or one object) of an S3-compatible store;
``hf://org/name@revision`` a repository of a Hugging Face Hub. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from beamlit_operator.origins.errors import OriginError, OriginReason

DEFAULT_HUB_ENDPOINT = "https://huggingface.co"
DEFAULT_HUB_REVISION = "main"

# S3's rules for bucket names, loosened to what compatible stores allow (capitals, underscores).
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# huggingface_hub.utils.validate_repo_id; a canonical model of the early days has no organisation.
_REPO = re.compile(
    r"(?!.*(--|\.\.))([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
)


@dataclass(frozen=True, slots=True)
class S3Ref:
    """A prefix, or a single object, in a bucket.

    Attributes:
        bucket: the bucket's name.
        prefix: without slashes at its ends; empty for the whole bucket.
        endpoint: URL of the store; ``None`` is AWS.
        region: ``None`` is us-east-1, from where AWS redirects.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise _invalid(f"bucket name {self.bucket!r} is not possible: use s3://BUCKET/PREFIX")
        _check_endpoint(self.endpoint)

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"{format_uri(self)}{where}"


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
            raise _invalid(f"repository {self.repo!r} is not possible: use ORGANISATION/NAME")
        if not self.revision:
            raise _invalid(f"revision of repository {self.repo!r} is empty: use a branch or commit")
        _check_endpoint(self.endpoint)

    @property
    def url(self) -> str:
        """The repository's page, for people."""
        return f"{(self.endpoint or DEFAULT_HUB_ENDPOINT).rstrip('/')}/{self.repo}"

    @property
    def place(self) -> str:
        """The reference as messages name it."""
        where = f" at {self.endpoint}" if self.endpoint else ""
        return f"{format_uri(self)}{where}"


OriginRef = S3Ref | HubRef


def parse_uri(
    uri: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    allow_patterns: tuple[str, ...] = (),
    ignore_patterns: tuple[str, ...] = (),
) -> OriginRef:
    """The reference ``uri`` stands for.

    Raises:
        OriginError: ``InvalidReference``, if it is neither ``s3://`` nor ``hf://`` or cannot exist.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise _invalid(f"{uri!r} has no scheme: use s3://BUCKET/PREFIX or hf://ORGANISATION/NAME")
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Ref(bucket, prefix.strip("/"), endpoint=endpoint or None, region=region or None)
    if scheme == "hf":
        repo, at, revision = rest.partition("@")
        return HubRef(
            repo.strip("/"),
            revision if at else DEFAULT_HUB_REVISION,
            endpoint=endpoint or None,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
        )
    raise _invalid(f"{uri!r} has scheme {scheme!r}: only s3:// and hf:// are known")


def format_uri(ref: OriginRef) -> str:
    """The shortest uri that :func:`parse_uri` reads back, without endpoint and patterns."""
    if isinstance(ref, S3Ref):
        return f"s3://{ref.bucket}/{ref.prefix}" if ref.prefix else f"s3://{ref.bucket}"
    if ref.revision == DEFAULT_HUB_REVISION:
        return f"hf://{ref.repo}"
    return f"hf://{ref.repo}@{ref.revision}"


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
        raise _invalid("endpoint holds a user name or password: put credentials into the Secret")
    if not usable:
        raise _invalid(f"endpoint {endpoint!r} is not a URL: use https://HOST[:PORT]")


def _invalid(message: str) -> OriginError:
    return OriginError(OriginReason.INVALID_REFERENCE, message)
