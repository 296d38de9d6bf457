"""A bucket that keeps versions, end to end: what a deployment was made for is what wakes."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.stack import SERVER

from .conftest import Workspace, ready

BROKEN = b"raise SystemExit('this is not what was asked for')"


@pytest.fixture
def bucket(stack: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store, in which a bucket keeps versions; the store's clock goes on by a
    second whenever it is read."""
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(hours=1)
    seconds = itertools.count()
    monkeypatch.setattr("moto.s3.models.utcnow", lambda: start + timedelta(seconds=next(seconds)))
    s3 = stack.s3()
    s3.create_bucket(Bucket="versioned")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    return s3


async def test_what_sleeps_wakes_as_it_was_though_its_objects_were_overwritten_and_deleted(
    workspace: Workspace, bucket: Any
) -> None:
    bucket.put_object(Bucket="versioned", Key="tiny/server.py", Body=SERVER.read_bytes())
    bucket.put_object(Bucket="versioned", Key="tiny/notes.txt", Body=b"of then")
    then = bucket.head_object(Bucket="versioned", Key="tiny/notes.txt")["LastModified"]
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.secret()
    s3 = {
        "uri": "s3://versioned/tiny",
        "endpoint": workspace.stack.store,
        "credentialsSecretRef": {"name": "store"},
        "versioned": True,
    }
    await workspace.apply("Model", "tiny", {"origin": {"s3": s3}})
    await workspace.deployment()
    before = await workspace.until_ready("Idle")
    bucket.put_object(Bucket="versioned", Key="tiny/server.py", Body=BROKEN)
    bucket.delete_object(Bucket="versioned", Key="tiny/notes.txt")
    assert (await workspace.call())[0] == 200
    (fetcher,) = (await workspace.pods())[0]["spec"]["initContainers"]
    assert fetcher["args"][-2:] == ["--as-of", then.strftime("%Y-%m-%dT%H:%M:%SZ")]

    # Another deployment asks for the same state by its time, long after it has passed.
    await workspace.apply("Environment", "staging", {"policies": []})
    runtime = (await workspace.get())["spec"]["runtime"]
    spec = {
        "model": "tiny",
        "environment": "staging",
        "runtime": runtime,
        "version": then.isoformat(),
    }
    await workspace.apply("ModelDeployment", "by-time", spec)
    pinned = await workspace.until_ready("Idle", "by-time")
    versions = [each["status"]["revisions"][0]["version"] for each in (before, pinned)]
    assert versions[0] == versions[1]
    answer = await workspace.call(query="?environment=staging")
    assert answer[0] == 200, answer

    await workspace.apply("ModelDeployment", "by-time", {**spec, "version": "sha256:" + "0" * 64})
    refused = await workspace.until_ready("InvalidSpec", "by-time")
    assert "name the time" in ready(refused)["message"]
