"""A bucket that keeps versions, as of a time; and one version of one object.

What a prefix holds as of a time is, for each key, the entry that was the latest then: a version, or
a delete marker, which is no object. Without a time it is what is the latest now, and the time that
says the same later is told: the newest ``LastModified`` among the entries that counted. So a pod
that fetches as of that time gets those versions, whatever was overwritten or deleted meanwhile.

| entries of one key, newest first       | as of 3   | as of 2   | as of 1   | now       |
|----------------------------------------|-----------|-----------|-----------|-----------|
| version b at 3, version a at 1         | b         | a         | a         | b         |
| delete marker at 2, version a at 1     | nothing   | nothing   | a         | nothing   |
| version b at 3, marker at 2, a at 1    | b         | nothing   | a         | b         |

Within a key the store's own order counts: it lists what was stored last first, while
``LastModified`` of a large object is when its upload began. Entries of one second that changed
after they were listed are told apart by nothing; the revision, a digest over what was listed, is
compared before anything is fetched, so such a one fails as ``Changed`` and is never served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from beamlit_operator.origins.errors import OriginError, OriginReason
from beamlit_operator.origins.listing import MAX_FILES, too_many_files
from beamlit_operator.origins.ref import S3Ref
from beamlit_operator.origins.stores.answers import in_time

NEVER_VERSIONED = "null"
"""The id of an object that was written while its bucket kept no versions."""

_MAX_ENTRIES = 10 * MAX_FILES
_SKEW = timedelta(minutes=15)
"""By how much clocks may differ; AWS refuses signatures of clocks that differ by more."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object. ``digest`` is its ETag without quotes."""

    key: str
    size: int
    digest: str
    id: str


@dataclass(frozen=True, slots=True)
class _Entry:
    version: Version | None
    """None: a delete marker."""
    at: datetime
    latest: bool


def versions_under(s3: Any, ref: S3Ref, folder: str) -> tuple[list[Version], str | None]:
    """What is under a folder, and as of when.

    Raises:
        OriginError: the time lies in the future; the bucket keeps no versions; there are too many.
        ClientError: the store refuses.
    """
    moment = _moment(ref)
    found: list[Version] = []
    newest: datetime | None = None
    for entries in _by_key(_pages(s3, ref, folder)):
        entry = _latest(entries, moment)
        if entry is None:
            continue
        newest = entry.at if newest is None else max(newest, entry.at)
        # Consoles mark empty folders with an empty object whose name ends in a slash.
        version = entry.version
        if version is None or (version.key.endswith("/") and version.size == 0):
            continue
        found.append(version)
        if len(found) > MAX_FILES:
            raise too_many_files(ref.place)
    if any(each.id == NEVER_VERSIONED for each in found):
        _check_versioning(s3, ref)
    return found, written(newest) if newest is not None else None


def one_version(s3: Any, ref: S3Ref) -> Version:
    """The version of one object that ``ref.version_id`` names.

    Raises:
        OriginError: there is no such version.
        ClientError: the store refuses.
    """
    try:
        head = s3.head_object(Bucket=ref.bucket, Key=ref.prefix, VersionId=ref.version_id)
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status not in (400, 404, 405):
            raise
        what = "is a delete marker" if status == 405 else "does not exist"
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"version {ref.version_id!r} of {ref.place} {what}: correct versionId, and let uri "
            "name one object and no folder",
        ) from None
    return Version(ref.prefix, head["ContentLength"], head["ETag"].strip('"'), str(ref.version_id))


def written(moment: datetime) -> str:
    """A time in RFC 3339."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _moment(ref: S3Ref) -> datetime | None:
    if ref.as_of is None:
        return None
    moment = datetime.fromisoformat(ref.as_of.upper().replace("Z", "+00:00"))
    if moment > datetime.now(UTC) + _SKEW:
        raise OriginError(
            OriginReason.INVALID_REFERENCE,
            f"{ref.place} as of {ref.as_of}, which lies in the future: name a time that has passed",
        )
    return moment


def _pages(s3: Any, ref: S3Ref, folder: str) -> Iterator[tuple[str, _Entry]]:
    """All entries by key; of one key, versions first, each kind newest first."""
    single = folder == ref.prefix and bool(folder)
    count = 0
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=ref.bucket, Prefix=folder)
    for page in in_time(pages):
        beyond = False
        for entry in sorted(_entries(page), key=lambda each: each[0].encode()):
            if single and entry[0] != folder:
                beyond = True
                break
            count += 1
            if count > _MAX_ENTRIES:
                raise too_many_files(ref.place)
            yield entry
        if beyond:
            return


def _entries(page: Any) -> Iterator[tuple[str, _Entry]]:
    for item in page.get("Versions", []):
        key = item["Key"]
        version = Version(
            key, item["Size"], item["ETag"].strip('"'), item.get("VersionId") or NEVER_VERSIONED
        )
        yield key, _Entry(version, item["LastModified"], bool(item.get("IsLatest")))
    for item in page.get("DeleteMarkers", []):
        yield item["Key"], _Entry(None, item["LastModified"], bool(item.get("IsLatest")))


def _by_key(entries: Iterable[tuple[str, _Entry]]) -> Iterator[list[_Entry]]:
    """The entries of each key; those of one key follow each other, also across pages."""
    current: str | None = None
    gathered: list[_Entry] = []
    for key, entry in entries:
        if key != current and gathered:
            yield gathered
            gathered = []
        current = key
        gathered.append(entry)
    if gathered:
        yield gathered


def _latest(entries: list[_Entry], moment: datetime | None) -> _Entry | None:
    """The entry of a key that was the latest at a moment; None: there was none yet."""
    for each in entries:
        if each.latest and (moment is None or each.at <= moment):
            return each
    if moment is None:
        return None
    version = next((e for e in entries if e.version is not None and e.at <= moment), None)
    marker = next((e for e in entries if e.version is None and e.at <= moment), None)
    if version is None or marker is None:
        return version or marker
    return version if version.at >= marker.at else marker


def _check_versioning(s3: Any, ref: S3Ref) -> None:
    """Refuses a bucket that will not keep what is there: its objects have no versions."""
    try:
        status = s3.get_bucket_versioning(Bucket=ref.bucket).get("Status")
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 403:
            raise
        raise OriginError(
            OriginReason.ACCESS_DENIED,
            f"{ref.place} has objects from before its bucket kept versions, and whether it does "
            "now may not be asked: allow s3:GetBucketVersioning",
        ) from None
    if status != "Enabled":
        how = "no longer keeps" if status == "Suspended" else "does not keep"
        raise OriginError(
            OriginReason.INVALID_REFERENCE,
            f"bucket {ref.bucket!r} {how} versions, so {ref.place} cannot be pinned to a time: "
            "turn versioning on, or remove versioned",
        )
