"""Archives of any origin, unpacked before a model server sees them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.hub import HubServer
from tests.support.webstore import WebStore

from beamlit_operator.origins import HubRef, OriginError, OriginReason, S3Ref, WebFile, WebRef
from beamlit_operator.origins.fetch import Fetched, fetch

from .conftest import KEYS

MODEL = {"model.onnx": b"weights", "code/inference.json": b"{}"}


def tgz(files: Mapping[str, bytes]) -> bytes:
    """As SageMaker's model.tar.gz."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def fetched(ref: Any, into: Path, **more: Any) -> Fetched:
    usual = {"credentials": KEYS, "report": lambda line: None, "unpack": True}
    return fetch(ref, into, **(usual | more))


def failure(ref: Any, into: Path, **more: Any) -> OriginError:
    with pytest.raises(OriginError) as caught:
        fetched(ref, into, **more)
    assert visible(into) == {}
    return caught.value


def visible(into: Path) -> dict[str, bytes]:
    """The model's files: all but the fetcher's own records."""
    return {
        str(path.relative_to(into)): path.read_bytes()
        for path in into.rglob("*")
        if path.is_file() and path.relative_to(into).parts[0] != ".beamlit"
    }


@pytest.fixture
def bucket(s3: Any, s3_endpoint: str) -> S3Ref:
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=tgz(MODEL))
    s3.put_object(Bucket="models", Key="m/README.md", Body=b"# m")
    s3.put_object(Bucket="models", Key="m/more/tables.zip", Body=zipped({"a.csv": b"1,2"}))
    return S3Ref("models", "m", endpoint=s3_endpoint)


UNPACKED = MODEL | {"README.md": b"# m", "more/a.csv": b"1,2"}


def test_archives_are_unpacked_where_they_lie(bucket: S3Ref, tmp_path: Path) -> None:
    done = fetched(bucket, tmp_path)
    assert visible(tmp_path) == UNPACKED
    assert done.files == len(UNPACKED)
    assert fetched(bucket, tmp_path, revision=done.revision).files == 0


def test_without_unpack_they_stay_as_they_are(bucket: S3Ref, tmp_path: Path) -> None:
    fetched(bucket, tmp_path, unpack=False)
    assert set(visible(tmp_path)) == {"model.tar.gz", "README.md", "more/tables.zip"}
    # The same revision unpacked is something else, and what was there before goes.
    fetched(bucket, tmp_path)
    assert visible(tmp_path) == UNPACKED
    fetched(bucket, tmp_path, unpack=False)
    assert set(visible(tmp_path)) == {"model.tar.gz", "README.md", "more/tables.zip"}


def test_a_shared_folder_holds_what_was_unpacked(bucket: S3Ref, tmp_path: Path) -> None:
    fetched(bucket, tmp_path / "f", shared=True)
    assert visible(tmp_path / "f") == UNPACKED


def test_archives_on_the_hub_and_on_web_servers(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", {"model.tgz": tgz(MODEL)})
    fetched(HubRef("org/m", endpoint=hub.endpoint), tmp_path / "hub", credentials={})
    assert visible(tmp_path / "hub") == MODEL
    content = zipped(MODEL)
    with WebStore(files={"model.zip": content}) as store:
        file = WebFile(store.url("model.zip"), hashlib.sha256(content).hexdigest())
        fetched(WebRef((file,)), tmp_path / "web", credentials={})
    assert visible(tmp_path / "web") == MODEL


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tgz({"../outside": b"x"}), OriginReason.UNSAFE_PATH),
        (tgz({"README.md": b"another"}), OriginReason.UNSAFE_PATH),
        (tgz(MODEL)[:-20], OriginReason.BAD_ARCHIVE),
        (zipped(MODEL), OriginReason.BAD_ARCHIVE),
        (tgz({"model.pkl": b"x"}), OriginReason.PICKLE_NOT_ALLOWED),
        (tgz({"weights.dat": pickle.dumps([1])}), OriginReason.PICKLE_NOT_ALLOWED),
        (tgz({"inner.bin": zipped({"data.pkl": b"x"})}), OriginReason.PICKLE_NOT_ALLOWED),
    ],
)
def test_nothing_is_published_of_what_cannot_be_taken(
    bucket: S3Ref, s3: Any, tmp_path: Path, content: bytes, reason: OriginReason
) -> None:
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=content)
    assert failure(bucket, tmp_path).reason is reason
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=tgz(MODEL))
    fetched(bucket, tmp_path)
    assert visible(tmp_path) == UNPACKED


def test_pickles_in_archives_follow_the_same_table(bucket: S3Ref, s3: Any, tmp_path: Path) -> None:
    inside = MODEL | {"extra.pkl": b"x"}
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=tgz(inside))
    s3.put_object(Bucket="models", Key="m/outside.pkl", Body=b"x")
    fetched(bucket, tmp_path / "left out")
    assert visible(tmp_path / "left out") == UNPACKED
    fetched(bucket, tmp_path / "allowed", allow_pickle=True)
    assert set(visible(tmp_path / "allowed")) == {*UNPACKED, "extra.pkl", "outside.pkl"}
    # Beside an archive without weights, the pickle outside is what the model needs.
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=tgz({"config.json": b"{}"}))
    error = failure(bucket, tmp_path / "needed")
    assert error.reason is OriginReason.PICKLE_NOT_ALLOWED
    assert "outside.pkl" in error.message


def test_a_fetch_that_is_killed_while_it_unpacks_publishes_nothing(
    bucket: S3Ref, s3: Any, s3_endpoint: str, tmp_path: Path
) -> None:
    files = {f"part-{n}.safetensors": os.urandom(2**20) for n in range(15)}
    s3.put_object(Bucket="models", Key="m/model.tar.gz", Body=tgz(files))
    command = [sys.executable, "-m", "beamlit_operator.origins", "s3://models/m", str(tmp_path)]
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": s3_endpoint}
    process = subprocess.Popen([*command, "--unpack"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".beamlit/work-*/unpacked/part-3.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert visible(tmp_path) == {}
    assert list(tmp_path.rglob("files/*.tar.gz"))  # the archive is not fetched again
    fetched(bucket, tmp_path)
    assert visible(tmp_path) == files | {"README.md": b"# m", "more/a.csv": b"1,2"}
