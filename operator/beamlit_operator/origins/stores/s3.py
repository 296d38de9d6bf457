"""S3 and whatever speaks its API: list, judge errors, read ranges.

Only ListObjectsV2 and GetObject are used, so that a key which may list and read is enough; for a
bucket that keeps versions, what :mod:`.s3_versions` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.exceptions import HTTPError as Urllib3Error

from beamlit_operator.origins.errors import OriginError, OriginReason, one_line
from beamlit_operator.origins.listing import (
    MAX_FILES,
    OriginFile,
    ResolvedOrigin,
    objects_revision,
    resolved,
    too_many_files,
)
from beamlit_operator.origins.ref import S3Ref
from beamlit_operator.origins.stores.answers import in_time
from beamlit_operator.origins.stores.identity import Who, who_asks
from beamlit_operator.origins.stores.reach import why
from beamlit_operator.origins.stores.s3_client import MAX_CONNECTIONS, client
from beamlit_operator.origins.stores.s3_versions import one_version, versions_under

__all__ = ["MAX_CONNECTIONS", "client", "judge", "look", "read", "version_of"]

_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AuthFailure",
    "AuthorizationHeaderMalformed",
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_REGION_CODES = {"PermanentRedirect", "301", "IllegalLocationConstraintException"}
_SLOW_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "429",
}


def look(ref: S3Ref, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Lists what is under ``ref``: see :func:`beamlit_operator.origins.resolve.resolve`."""
    s3 = client(ref, credentials)
    try:
        folder = f"{ref.prefix}/" if ref.prefix else ""
        if ref.keeps_versions:
            return _look_at_versions(s3, ref, folder)
        found = list(_objects(s3, ref, folder))
        if not found and ref.prefix:
            # Not a folder: perhaps one object. It sorts first among those with its name as prefix.
            page = s3.list_objects_v2(Bucket=ref.bucket, Prefix=ref.prefix, MaxKeys=1)
            found = [
                (item["Key"], item["Size"], item["ETag"].strip('"'))
                for item in page.get("Contents", [])
                if item["Key"] == ref.prefix
            ]
            folder = ref.prefix[: ref.prefix.rfind("/") + 1]
    except (ClientError, BotoCoreError) as error:
        raise judge(error, ref, credentials) from None
    except (KeyError, TypeError, AttributeError):  # a listing without names, sizes or ETags
        raise OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place}: the endpoint does not answer like S3: check endpoint",
        ) from None
    finally:
        s3.close()
    if not found:
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"{ref.place} holds no object: upload the model there or correct the prefix",
        )
    files = [OriginFile(key.removeprefix(folder), size, etag, key) for key, size, etag in found]
    return resolved(objects_revision(found), files, place=ref.place)


def _look_at_versions(s3: Any, ref: S3Ref, folder: str) -> ResolvedOrigin:
    """The same where the bucket keeps versions."""
    as_of: str | None = None
    alone = ref.prefix[: ref.prefix.rfind("/") + 1]
    if ref.version_id is not None:
        found, folder = [one_version(s3, ref)], alone
    else:
        found, as_of = versions_under(s3, ref, folder)
        if not found and ref.prefix:
            found, as_of = versions_under(s3, ref, ref.prefix)
            folder = alone
    if not found:
        when = f" as of {ref.as_of}" if ref.as_of else ""
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"{ref.place} holds no object{when}: upload the model there or correct prefix and time",
        )
    files = [
        OriginFile(each.key.removeprefix(folder), each.size, each.digest, each.key, each.id)
        for each in found
    ]
    revision = objects_revision((each.key, each.size, each.digest) for each in found)
    return replace(resolved(revision, files, place=ref.place), as_of=as_of)


def version_of(file: OriginFile) -> dict[str, str]:
    """What asks for the version that was listed, where there is one."""
    return {"VersionId": file.version} if file.version else {}


def read(
    ref: S3Ref, credentials: Mapping[str, str], file: OriginFile, start: int, length: int
) -> bytes:
    """See :func:`beamlit_operator.origins.kinds.read`."""
    s3 = client(ref, credentials)
    try:
        answer = s3.get_object(
            Bucket=ref.bucket,
            Key=file.source,
            **version_of(file),
            IfMatch=f'"{file.digest}"',
            Range=f"bytes={start}-{start + length - 1}",
        )
        with contextlib.closing(answer["Body"]) as body:
            # Not every compatible store honours If-Match and Range.
            if answer.get("ETag", "").strip('"') != file.digest or (
                answer.get("ContentLength") != length
            ):
                raise OriginError(
                    OriginReason.CHANGED,
                    f"object {file.source!r} of {ref.place} was changed or removed meanwhile",
                )
            # No more than was asked for, whatever the store sends.
            part: bytes = body.read(length)
        if len(part) != length:
            raise OriginError(
                OriginReason.UNREACHABLE,
                f"{ref.place} cannot be reached: it breaks connections off; check the store, and "
                "proxies between",
            )
        return part
    except (ClientError, BotoCoreError, Urllib3Error, ConnectionError) as error:
        raise judge(error, ref, credentials) from None
    finally:
        s3.close()


def judge(error: Exception, ref: S3Ref, credentials: Mapping[str, str]) -> OriginError:
    """What ``error`` means for a person."""
    if isinstance(error, ParamValidationError):
        return OriginError(
            OriginReason.INVALID_REFERENCE, f"{ref.place} is not possible: check bucket and prefix"
        )
    if isinstance(error, ClientError):
        return _judge_answer(error, ref, credentials)
    mend = "" if ref.endpoint else "; a store that is not AWS needs its endpoint"
    return OriginError(
        OriginReason.UNREACHABLE,
        f"{ref.place} cannot be reached: {why(error)}{mend}",
    )


def _judge_answer(error: ClientError, ref: S3Ref, credentials: Mapping[str, str]) -> OriginError:
    answer = error.response
    code = one_line(str(answer.get("Error", {}).get("Code", "")))[:100]
    meta = answer.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    who = who_asks(credentials)
    if code in _EXPIRED_CODES:
        mend = "renew the Secret" if who is Who.KEY else "check the clocks here and there"
        return OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the session token for {ref.place} has expired: {mend}",
        )
    if code == "NoSuchBucket":
        return OriginError(
            OriginReason.BUCKET_NOT_FOUND,
            f"bucket {ref.bucket!r} does not exist at {ref.endpoint or 'AWS'}: create it or "
            "correct the name",
        )
    if code in _REGION_CODES or (code == "AuthorizationHeaderMalformed" and "region" in str(error)):
        return OriginError(
            OriginReason.WRONG_REGION,
            f"bucket {ref.bucket!r} is not in region {ref.region or 'us-east-1'}: set the origin's "
            "region to the bucket's own",
        )
    if code in _CREDENTIAL_CODES:
        return OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the store does not accept {who.value} for {ref.place} ({code}): "
            f"{_MEND_CREDENTIALS[who]}",
        )
    if status in (401, 403):
        return OriginError(
            OriginReason.ACCESS_DENIED,
            f"{who.value} is not allowed to {_asked_for(error)} {ref.place}: {_advice(who, ref)}",
        )
    if code in _SLOW_CODES or status == 429:
        return OriginError(
            OriginReason.RATE_LIMITED,
            f"the store of {ref.place} asks to slow down: it is tried again later",
            retry_after_seconds=_seconds(meta.get("HTTPHeaders", {}).get("retry-after")),
        )
    if status == 412 or code in (
        *("NoSuchKey", "NoSuchVersion", "InvalidRange", "PreconditionFailed"),
    ):
        return OriginError(
            OriginReason.CHANGED, f"an object of {ref.place} was changed or removed meanwhile"
        )
    text = one_line(str(answer.get("Error", {}).get("Message", "")), credentials.values())
    return OriginError(
        OriginReason.UNREACHABLE, f"the store of {ref.place} answered {status} {code}: {text}"
    )


_MEND_CREDENTIALS = {
    Who.KEY: "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret",
    Who.ROLE: "it must take the credentials that webIdentity's STS gives",
    Who.NODE: "it must take the credentials of the pod or node",
    Who.NOBODY: "name a Secret with credentials",
}


def _asked_for(error: ClientError) -> str:
    """What was refused, as a verb: who may list need not be allowed to read, and the other way."""
    known = {"ListObjectVersions": "list the versions in", "ListObjectsV2": "list"}
    return known.get(error.operation_name, "read")


def _advice(who: Who, ref: S3Ref) -> str:
    if who is Who.NOBODY:
        return "name a Secret with credentials"
    if ref.keeps_versions:
        return "allow it s3:ListBucketVersions and s3:GetObjectVersion"
    return "allow it to list and read"


def _objects(s3: Any, ref: S3Ref, folder: str) -> Iterator[tuple[str, int, str]]:
    count = 0
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=ref.bucket, Prefix=folder)
    for page in in_time(pages):
        for item in page.get("Contents", []):
            # Consoles mark empty folders with an empty object whose name ends in a slash.
            if item["Key"].endswith("/") and item["Size"] == 0:
                continue
            count += 1
            if count > MAX_FILES:
                raise too_many_files(ref.place)
            yield item["Key"], item["Size"], item["ETag"].strip('"')


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None
