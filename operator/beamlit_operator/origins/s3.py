"""S3 and whatever speaks its API: list, judge errors, read ranges.

Only ListObjectsV2 and GetObject are used, so that a key which may list and read is enough. The
client is configured here and by nothing else: no profile, no instance metadata, no AWS variable of
the process' environment, because an operator must not lend its own rights to a Model.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import CredentialResolver
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, SSLError
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

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a field
SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - the name of a field

MAX_CONNECTIONS = 8

_CLIENT_LOCK = threading.Lock()

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


def client(ref: S3Ref, credentials: Mapping[str, str]) -> Any:
    """A botocore S3 client for ``ref``. Safe to share between threads.

    Raises:
        OriginError: if ``credentials`` has only one of the two keys.
    """
    key, secret = credentials.get(ACCESS_KEY), credentials.get(SECRET_KEY)
    if bool(key) != bool(secret):
        missing = SECRET_KEY if key else ACCESS_KEY
        raise OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the credentials for {ref.place} have no {missing}: add it, or give neither key to "
            "read a public bucket",
        )
    config = Config(  # type: ignore[no-untyped-call]
        # Names with dots break TLS host names, and few compatible stores have DNS per bucket.
        s3={"addressing_style": "path" if ref.endpoint else "auto"},
        signature_version="s3v4" if key else UNSIGNED,
        connect_timeout=5,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=MAX_CONNECTIONS,
        ignore_configured_endpoint_urls=True,
        # Ranges are verified here; not every compatible store knows the checksum headers.
        response_checksum_validation="when_required",
    )
    with _CLIENT_LOCK:  # creating clients is not thread-safe, using them is
        return _session().create_client(
            "s3",
            region_name=ref.region or "us-east-1",
            endpoint_url=ref.endpoint,
            aws_access_key_id=key or None,
            aws_secret_access_key=secret or None,
            aws_session_token=(credentials.get(SESSION_TOKEN) or None) if key else None,
            config=config,
        )


def look(ref: S3Ref, credentials: Mapping[str, str]) -> ResolvedOrigin:
    """Lists what is under ``ref``: see :func:`beamlit_operator.origins.resolve.resolve`."""
    s3 = client(ref, credentials)
    try:
        folder = f"{ref.prefix}/" if ref.prefix else ""
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
    finally:
        s3.close()
    if not found:
        raise OriginError(
            OriginReason.NO_OBJECTS,
            f"{ref.place} holds no object: upload the model there or correct the prefix",
        )
    files = [OriginFile(key.removeprefix(folder), size, etag, key) for key, size, etag in found]
    return resolved(objects_revision(found), files, place=ref.place)


def read(
    ref: S3Ref, credentials: Mapping[str, str], file: OriginFile, start: int, length: int
) -> bytes:
    """See :func:`beamlit_operator.origins.kinds.read`."""
    s3 = client(ref, credentials)
    try:
        answer = s3.get_object(
            Bucket=ref.bucket,
            Key=file.source,
            IfMatch=f'"{file.digest}"',
            Range=f"bytes={start}-{start + length - 1}",
        )
        with contextlib.closing(answer["Body"]) as body:
            # Not every compatible store honours If-Match and Range.
            if answer.get("ETag", "").strip('"') != file.digest or (
                answer["ContentLength"] != length
            ):
                raise OriginError(
                    OriginReason.CHANGED,
                    f"object {file.source!r} of {ref.place} was changed or removed meanwhile",
                )
            part: bytes = body.read()
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
    if isinstance(error, SSLError):
        return OriginError(
            OriginReason.UNREACHABLE,
            f"{ref.place}: the store's certificate is not trusted or TLS failed: check endpoint",
        )
    return OriginError(
        OriginReason.UNREACHABLE,
        f"{ref.place} cannot be reached ({type(error).__name__}): check endpoint and network",
    )


def _judge_answer(error: ClientError, ref: S3Ref, credentials: Mapping[str, str]) -> OriginError:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    meta = answer.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    anonymous = not credentials.get(ACCESS_KEY)
    if code in _EXPIRED_CODES:
        return OriginError(
            OriginReason.CREDENTIALS_INVALID,
            f"the session token for {ref.place} has expired: renew the Secret",
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
            f"the store does not accept the key for {ref.place} ({code}): correct {ACCESS_KEY} and "
            f"{SECRET_KEY} in the Secret",
        )
    if status in (401, 403):
        advice = "name a Secret with credentials" if anonymous else "allow the key to list and read"
        who = "anonymous access" if anonymous else "the key"
        return OriginError(
            OriginReason.ACCESS_DENIED, f"{who} is not allowed to read {ref.place}: {advice}"
        )
    if code in _SLOW_CODES or status == 429:
        return OriginError(
            OriginReason.RATE_LIMITED,
            f"the store of {ref.place} asks to slow down: it is tried again later",
            retry_after_seconds=_seconds(meta.get("HTTPHeaders", {}).get("retry-after")),
        )
    if status == 412 or code in ("NoSuchKey", "InvalidRange", "PreconditionFailed"):
        return OriginError(
            OriginReason.CHANGED, f"an object of {ref.place} was changed or removed meanwhile"
        )
    text = one_line(str(answer.get("Error", {}).get("Message", "")), credentials.values())
    return OriginError(
        OriginReason.UNREACHABLE, f"the store of {ref.place} answered {status} {code}: {text}"
    )


def _objects(s3: Any, ref: S3Ref, folder: str) -> Iterator[tuple[str, int, str]]:
    count = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=ref.bucket, Prefix=folder):
        for item in page.get("Contents", []):
            # Consoles mark empty folders with an empty object whose name ends in a slash.
            if item["Key"].endswith("/") and item["Size"] == 0:
                continue
            count += 1
            if count > MAX_FILES:
                raise too_many_files(ref.place)
            yield item["Key"], item["Size"], item["ETag"].strip('"')


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None


@functools.cache
def _session() -> botocore.session.Session:
    session = botocore.session.Session(  # type: ignore[no-untyped-call]
        session_vars={
            "profile": (None, None, None, None),
            "region": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    # Without this an anonymous client would search the whole chain, up to instance metadata.
    nobody = CredentialResolver([])  # type: ignore[no-untyped-call]
    session.register_component("credential_provider", nobody)  # type: ignore[no-untyped-call]
    return session
