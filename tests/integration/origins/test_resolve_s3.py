"""Resolving S3 references against a real S3 API server, over HTTP."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp import web

from beamlit_operator.origins import OriginError, OriginReason, S3Ref, resolve

from .conftest import KEYS


async def failure(
    ref: S3Ref, credentials: dict[str, str] | None = None, **more: Any
) -> OriginError:
    with pytest.raises(OriginError) as caught:
        await resolve(ref, KEYS if credentials is None else credentials, **more)
    assert "secret-example" not in str(caught.value)
    return caught.value


async def test_files_are_listed_relative_to_the_prefix(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="iris/v1/model.joblib", Body=b"weights")
    s3.put_object(Bucket="models", Key="iris/v1/sub/settings.json", Body=b"{}")
    s3.put_object(Bucket="models", Key="iris/v1/", Body=b"")
    s3.put_object(Bucket="models", Key="iris/v10/other", Body=b"x")

    found = await resolve(S3Ref("models", "iris/v1", endpoint=s3_endpoint), KEYS)

    assert [(file.path, file.size) for file in found.files] == [
        ("model.joblib", 7),
        ("sub/settings.json", 2),
    ]
    assert found.bytes == 9


async def test_a_single_object_is_listed_by_its_own_name(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="gguf/tiny.gguf", Body=b"GGUF")
    found = await resolve(S3Ref("models", "gguf/tiny.gguf", endpoint=s3_endpoint), KEYS)
    assert [(file.path, file.source) for file in found.files] == [("tiny.gguf", "gguf/tiny.gguf")]


async def test_the_whole_bucket_can_be_a_model(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="model.onnx", Body=b"x")
    found = await resolve(S3Ref("models", endpoint=s3_endpoint), KEYS)
    assert [file.path for file in found.files] == ["model.onnx"]


async def test_the_revision_stays_until_content_changes(s3: Any, s3_endpoint: str) -> None:
    ref = S3Ref("models", "iris", endpoint=s3_endpoint)
    s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
    first = await resolve(ref, KEYS)
    s3.put_object(Bucket="models", Key="iris/a", Body=b"1")
    again = await resolve(ref, KEYS)
    s3.put_object(Bucket="models", Key="iris/a", Body=b"2")
    changed = await resolve(ref, KEYS)

    assert first.revision == again.revision
    assert first.revision != changed.revision


async def test_listings_of_many_pages_are_complete(s3: Any, s3_endpoint: str) -> None:
    for number in range(1001):
        s3.put_object(Bucket="models", Key=f"many/{number:05}", Body=b"")
    found = await resolve(S3Ref("models", "many", endpoint=s3_endpoint), KEYS)
    assert len(found.files) == 1001


async def test_a_missing_bucket_is_named(s3: Any, s3_endpoint: str) -> None:
    error = await failure(S3Ref("missing", "iris", endpoint=s3_endpoint))
    assert error.reason is OriginReason.BUCKET_NOT_FOUND
    assert "'missing'" in error.message
    assert error.stalled


async def test_an_empty_prefix_is_named(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="iris-2/a", Body=b"1")
    error = await failure(S3Ref("models", "iris", endpoint=s3_endpoint))
    assert error.reason is OriginReason.NO_OBJECTS
    assert "s3://models/iris" in error.message


async def test_a_name_that_leaves_the_directory_is_refused(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="evil/../../etc/passwd", Body=b"1")
    error = await failure(S3Ref("models", "evil", endpoint=s3_endpoint))
    assert error.reason is OriginReason.UNSAFE_PATH


async def test_half_a_key_pair_is_refused_before_asking() -> None:
    ref = S3Ref("models", endpoint="http://127.0.0.1:1")
    error = await failure(ref, {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"})
    assert error.reason is OriginReason.CREDENTIALS_INVALID
    assert "AWS_SECRET_ACCESS_KEY" in error.message


async def test_an_endpoint_where_nobody_listens_is_unreachable_and_not_stalled() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(S3Ref("models", endpoint=f"http://127.0.0.1:{port}"))
    assert error.reason is OriginReason.UNREACHABLE
    assert not error.stalled


async def test_a_store_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ref = S3Ref("models", endpoint=f"http://127.0.0.1:{port}")
        error = await failure(ref, timeout_seconds=0.3)
    assert error.reason is OriginReason.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "InvalidAccessKeyId", OriginReason.CREDENTIALS_INVALID),
        (403, "SignatureDoesNotMatch", OriginReason.CREDENTIALS_INVALID),
        (400, "ExpiredToken", OriginReason.CREDENTIALS_INVALID),
        (403, "AccessDenied", OriginReason.ACCESS_DENIED),
        (404, "NoSuchBucket", OriginReason.BUCKET_NOT_FOUND),
        (400, "IllegalLocationConstraintException", OriginReason.WRONG_REGION),
        (503, "SlowDown", OriginReason.RATE_LIMITED),
        (500, "InternalError", OriginReason.UNREACHABLE),
    ],
)
async def test_each_answer_of_a_store_becomes_its_reason(
    status: int, code: str, reason: OriginReason, answering: Any
) -> None:
    body = f"<Error><Code>{code}</Code><Message>of secret-example</Message></Error>"
    async with answering(status, body) as endpoint:
        error = await failure(S3Ref("models", "iris", endpoint=endpoint))
    assert error.reason is reason


async def test_no_credentials_means_anonymous_whatever_the_process_has(
    answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOPERATOR")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-operator")
    monkeypatch.setenv("AWS_PROFILE", "missing-profile")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    seen: list[str | None] = []
    async with answering(403, "<Error><Code>AccessDenied</Code></Error>", seen) as endpoint:
        error = await failure(S3Ref("models", endpoint=endpoint), {})
    assert seen == [None]
    assert error.reason is OriginReason.ACCESS_DENIED
    assert "name a Secret" in error.message


@pytest.mark.parametrize(
    ("style", "host", "path"),
    [
        ("auto", "store.invalid", "/models"),
        ("path", "store.invalid", "/models"),
        ("virtual", "models.store.invalid", "/"),
    ],
)
async def test_a_bucket_stands_where_the_store_wants_it(
    style: str, host: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.host, request.path))
        return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    # Nobody has that name: what stands for the proxy answers instead.
    proxy = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    try:
        ref = S3Ref("models", "m", endpoint="http://store.invalid", addressing_style=style)
        error = await failure(ref)
    finally:
        await runner.cleanup()
    assert error.reason is OriginReason.ACCESS_DENIED
    assert seen == [(host, path)]
