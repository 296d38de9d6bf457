"""A bucket that keeps versions: a revision stays what it was, whatever becomes of its objects."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.origins import OriginError, OriginReason, S3Ref, resolve
from beamlit_operator.origins.fetch import Fetched, fetch
from beamlit_operator.origins.listing import ResolvedOrigin
from beamlit_operator.origins.stores import s3_versions

from .conftest import KEYS


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], datetime]:
    """The store's clock, whose times have seconds, goes on by one whenever it is read; it is an
    hour slow."""
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)
    seconds = itertools.count()

    def now() -> datetime:
        return start + timedelta(seconds=next(seconds))

    monkeypatch.setattr("moto.s3.models.utcnow", now)
    return now


@pytest.fixture
def put(s3: Any) -> Callable[[str, bytes], str]:
    """Writes an object into a bucket that keeps versions, and gives the version's id."""
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})

    def write(key: str, body: bytes) -> str:
        version: str = s3.put_object(Bucket="models", Key=key, Body=body)["VersionId"]
        return version

    return write


def delete(s3: Any, key: str) -> None:
    s3.delete_object(Bucket="models", Key=key)


def at(endpoint: str, **more: Any) -> S3Ref:
    return S3Ref("models", more.pop("prefix", "m"), endpoint=endpoint, **more)


def bring(ref: S3Ref, directory: Path, found: ResolvedOrigin) -> Fetched:
    return fetch(
        ref,
        directory,
        revision=found.revision,
        credentials=KEYS,
        report=lambda line: None,
        allow_pickle=True,
    )


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".beamlit" not in path.parts
    }


async def test_what_was_overwritten_deleted_and_added_changes_no_pinned_revision(
    s3: Any, s3_endpoint: str, put: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    put("m/gone", b"of then")
    delete(s3, "m/gone")
    put("m/a", b"a1")
    put("m/b", b"b1")
    put("other/x", b"x")
    before = await resolve(at(s3_endpoint, versioned=True), KEYS)
    put("m/a", b"a2, and longer")
    delete(s3, "m/b")
    put("m/c", b"c1")
    put("m/gone", b"back")
    after = await resolve(at(s3_endpoint, versioned=True), KEYS)

    assert [file.path for file in before.files] == ["a", "b"]
    assert [file.path for file in after.files] == ["a", "c", "gone"]
    assert before.as_of is not None
    pinned = at(s3_endpoint, as_of=before.as_of)
    again = await resolve(pinned, KEYS)
    assert (again.revision, again.as_of) == (before.revision, before.as_of)
    bring(pinned, tmp_path / "old", before)
    bring(at(s3_endpoint, as_of=after.as_of), tmp_path / "new", after)
    assert content(tmp_path / "old") == {"a": b"a1", "b": b"b1"}
    assert content(tmp_path / "new") == {"a": b"a2, and longer", "c": b"c1", "gone": b"back"}


async def test_the_time_of_a_revision_moves_only_with_its_prefix(
    s3_endpoint: str, put: Callable[[str, bytes], str]
) -> None:
    put("m/a", b"a1")
    first = await resolve(at(s3_endpoint, versioned=True), KEYS)
    put("elsewhere/a", b"a1")
    second = await resolve(at(s3_endpoint, versioned=True), KEYS)
    assert first == second


async def test_without_versions_in_use_a_revision_is_the_same_as_ever(
    s3_endpoint: str, put: Callable[[str, bytes], str]
) -> None:
    put("m/a", b"a1")
    versioned = await resolve(at(s3_endpoint, versioned=True), KEYS)
    plain = await resolve(at(s3_endpoint), KEYS)
    assert versioned.revision == plain.revision


async def test_any_time_may_be_named_that_has_passed(
    s3_endpoint: str, put: Callable[[str, bytes], str], clock: Callable[[], datetime]
) -> None:
    put("m/a", b"a1")
    between = s3_versions.written(clock().replace(tzinfo=UTC))
    put("m/a", b"a2")
    found = await resolve(at(s3_endpoint, as_of=between), KEYS)
    assert [file.size for file in found.files] == [2]
    for when, reason in (
        (datetime.now(UTC) - timedelta(days=900), OriginReason.NO_OBJECTS),
        (datetime.now(UTC) + timedelta(days=1), OriginReason.INVALID_REFERENCE),
    ):
        with pytest.raises(OriginError) as caught:
            await resolve(at(s3_endpoint, as_of=s3_versions.written(when)), KEYS)
        assert caught.value.reason is reason
        assert when.strftime("%Y-%m-%dT") in caught.value.message


async def test_one_object_may_be_pinned_too(
    s3: Any, s3_endpoint: str, put: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    put("m/a.gguf", b"a1")
    put("m/a.gguf-other", b"another")
    before = await resolve(at(s3_endpoint, prefix="m/a.gguf", versioned=True), KEYS)
    delete(s3, "m/a.gguf")
    pinned = at(s3_endpoint, prefix="m/a.gguf", as_of=before.as_of)
    bring(pinned, tmp_path, before)
    assert content(tmp_path) == {"a.gguf": b"a1"}


async def test_a_version_of_one_object_is_fetched_by_its_id(
    s3: Any, s3_endpoint: str, put: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    first = put("m/a.gguf", b"a1")
    put("m/a.gguf", b"a2")
    ref = at(s3_endpoint, prefix="m/a.gguf", version_id=first)
    bring(ref, tmp_path, await resolve(ref, KEYS))
    assert content(tmp_path) == {"a.gguf": b"a1"}
    for wrong in ("no-such-version", "null"):
        with pytest.raises(OriginError) as caught:
            await resolve(at(s3_endpoint, prefix="m/a.gguf", version_id=wrong), KEYS)
        assert caught.value.reason is OriginReason.NO_OBJECTS
        assert "versionId" in caught.value.message


@pytest.mark.parametrize(("status", "words"), [(None, "does not keep"), ("Suspended", "no longer")])
async def test_a_bucket_that_keeps_no_versions_is_named(
    s3: Any, s3_endpoint: str, status: str | None, words: str
) -> None:
    if status is not None:
        s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": status})
    s3.put_object(Bucket="models", Key="m/a", Body=b"a1")
    with pytest.raises(OriginError) as caught:
        await resolve(at(s3_endpoint, versioned=True), KEYS)
    assert caught.value.reason is OriginReason.INVALID_REFERENCE
    assert f"bucket 'models' {words}" in caught.value.message


async def test_objects_from_before_versions_were_kept_are_pinned_too(
    s3: Any, s3_endpoint: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket="models", Key="m/a", Body=b"a1")
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    before = await resolve(at(s3_endpoint, versioned=True), KEYS)
    s3.put_object(Bucket="models", Key="m/a", Body=b"a2")
    bring(at(s3_endpoint, as_of=before.as_of), tmp_path, before)
    assert content(tmp_path) == {"a": b"a1"}


async def test_versions_that_were_removed_for_good_are_told_and_nothing_else_is_served(
    s3: Any, s3_endpoint: str, put: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    first = put("m/a", b"a1")
    put("m/b", b"b1")
    before = await resolve(at(s3_endpoint, versioned=True), KEYS)
    put("m/a", b"a2")
    s3.delete_object(Bucket="models", Key="m/a", VersionId=first)
    with pytest.raises(OriginError) as caught:
        bring(at(s3_endpoint, as_of=before.as_of), tmp_path, before)
    assert caught.value.reason is OriginReason.CHANGED
    assert "lifecycle rule" in caught.value.message
    assert content(tmp_path) == {}


async def test_who_may_not_list_versions_is_told_which_right_is_missing(answering: Any) -> None:
    body = "<Error><Code>AccessDenied</Code></Error>"
    async with answering(403, body) as endpoint:
        with pytest.raises(OriginError) as caught:
            await resolve(at(endpoint, versioned=True), KEYS)
    assert caught.value.reason is OriginReason.ACCESS_DENIED
    for word in ("not allowed to list the versions", "s3:ListBucketVersions", "GetObjectVersion"):
        assert word in caught.value.message


def test_the_command_fetches_as_of_a_time(
    s3_endpoint: str,
    put: Callable[[str, bytes], str],
    clock: Callable[[], datetime],
    tmp_path: Path,
) -> None:
    put("m/a", b"a1")
    between = s3_versions.written(clock().replace(tzinfo=UTC))
    put("m/a", b"a2")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "beamlit_operator.origins", "s3://models/m"),
            *(str(tmp_path / "m"), "--as-of", between, "--endpoint", s3_endpoint),
        ],
        env=KEYS,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "m") == {"a": b"a1"}
