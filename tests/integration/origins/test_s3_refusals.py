"""What a store refuses, and how networks fail: one sentence each, and never a flood."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from tests.support.flakystore import FlakyStore
from tests.support.processes import wait_until

from beamlit_operator.origins import OriginError, OriginReason, S3Ref, resolve
from beamlit_operator.origins.fetch import fetch
from beamlit_operator.origins.fetching import arriving
from beamlit_operator.origins.inspection import inspect
from beamlit_operator.origins.stores import s3_client
from beamlit_operator.origins.stores.s3 import judge

from .conftest import KEYS

SECRETS = ("secret-example", "wrong-secret", "a-session-token")


def bring(ref: S3Ref, directory: Path, credentials: dict[str, str]) -> OriginError:
    """Why it cannot be fetched."""
    with pytest.raises(OriginError) as caught:
        fetch(ref, directory, credentials=credentials, report=lambda line: None)
    assert not [path for path in directory.glob("*") if path.name != ".beamlit"]
    return caught.value


class Guarded:
    """The store, which checks keys, signatures and policies."""

    def __init__(self, endpoint: str, iam: Any) -> None:
        self.endpoint = endpoint
        self._iam = iam
        self._users = 0

    def user(self, *actions: str) -> dict[str, str]:
        """The keys of somebody who may do that."""
        self._guard(False)
        self._users += 1
        name = f"user-{self._users}"
        self._iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
        made = self._iam.create_access_key(UserName=name)["AccessKey"]
        self._guard(True)
        return {
            "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        }

    def _guard(self, on: bool) -> None:
        body = b"0" if on else b"inf"
        url = f"{self.endpoint}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, data=body, headers=plain, method="POST")
        urllib.request.urlopen(request).close()


@pytest.fixture
def guarded(s3: Any, s3_endpoint: str) -> Iterator[Guarded]:
    s3.put_object(Bucket="models", Key="m/weights", Body=b"w" * 1000)
    iam = botocore.session.get_session().create_client(
        "iam",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="admin",
        aws_secret_access_key="admin",
    )
    store = Guarded(s3_endpoint, iam)
    yield store
    store._guard(False)
    iam.close()


async def test_a_key_that_may_list_and_read_is_enough(guarded: Guarded, tmp_path: Path) -> None:
    keys = guarded.user("s3:ListBucket", "s3:GetObject")
    ref = S3Ref("models", "m", endpoint=guarded.endpoint)
    assert (await resolve(ref, keys)).bytes == 1000
    assert fetch(ref, tmp_path, credentials=keys, report=lambda line: None).files == 1


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"},
            OriginReason.CREDENTIALS_INVALID,
            "InvalidAccessKey",
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong-secret"},
            OriginReason.CREDENTIALS_INVALID,
            "SignatureDoesNotMatch",
        ),
    ],
)
async def test_a_wrong_key_and_a_wrong_secret_are_named(
    guarded: Guarded, change: dict[str, str], reason: OriginReason, words: str
) -> None:
    keys = {**guarded.user("s3:*"), **change}
    with pytest.raises(OriginError) as caught:
        await resolve(S3Ref("models", "m", endpoint=guarded.endpoint), keys)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert "in the Secret" in caught.value.message
    assert keys["AWS_SECRET_ACCESS_KEY"] not in caught.value.message


async def test_who_may_read_but_not_list_is_told_so(guarded: Guarded) -> None:
    keys = guarded.user("s3:GetObject")
    with pytest.raises(OriginError) as caught:
        await resolve(S3Ref("models", "m", endpoint=guarded.endpoint), keys)
    assert caught.value.reason is OriginReason.ACCESS_DENIED
    assert "not allowed to list s3://models/m" in caught.value.message


async def test_who_may_list_but_not_read_is_told_so(guarded: Guarded, tmp_path: Path) -> None:
    keys = guarded.user("s3:ListBucket")
    ref = S3Ref("models", "m", endpoint=guarded.endpoint)
    listing = await resolve(ref, keys)
    assert listing.files
    told = (await inspect(ref, keys, listing)).denied
    assert told is not None
    assert (told.reason, told.message) == (
        OriginReason.ACCESS_DENIED,
        "the key is not allowed to read s3://models/m at "
        f"{guarded.endpoint}: allow it to list and read",
    )
    problem = bring(ref, tmp_path, keys)
    assert problem.reason is OriginReason.ACCESS_DENIED
    assert "not allowed to read s3://models/m" in problem.message


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (
            400,
            "<Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; "
            "expecting 'eu-west-1'</Message><Region>eu-west-1</Region>",
            OriginReason.WRONG_REGION,
            "not in region us-east-1",
        ),
        (301, "<Code>PermanentRedirect</Code>", OriginReason.WRONG_REGION, "set the origin's"),
        (400, "<Code>ExpiredToken</Code>", OriginReason.CREDENTIALS_INVALID, "renew the Secret"),
        (403, "<Code>RequestTimeTooSkewed</Code>", OriginReason.ACCESS_DENIED, "not allowed"),
        (404, "<Code>NoSuchKey</Code>", OriginReason.CHANGED, "meanwhile"),
    ],
)
async def test_each_refusal_is_one_sentence(
    status: int, body: str, reason: OriginReason, words: str, answering: Any
) -> None:
    credentials = {**KEYS, "AWS_SESSION_TOKEN": "a-session-token"}
    async with answering(status, f"<Error>{body}</Error>") as endpoint:
        with pytest.raises(OriginError) as caught:
            await resolve(S3Ref("models", "m", endpoint=endpoint), credentials)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert not [each for each in SECRETS if each in str(caught.value)]


async def test_names_are_read_as_they_are_from_stores_that_do_not_encode_them(
    s3: Any, s3_endpoint: str, answering: Any
) -> None:
    name = "a+b%20c d&é.bin"
    s3.put_object(Bucket="models", Key=f"m/{name}", Body=b"w")
    encoded = await resolve(S3Ref("models", "m", endpoint=s3_endpoint), KEYS)
    # As Google's store answers, which has no `encoding-type`.
    body = f"""<ListBucketResult><Name>models</Name><IsTruncated>false</IsTruncated><Contents>
        <Key>m/{name.replace("&", "&amp;")}</Key><Size>1</Size>
        <ETag>"f1290186a5d0b1ceab27f4e77c0c5d68"</ETag></Contents></ListBucketResult>"""
    async with answering(200, body) as endpoint:
        plain = await resolve(S3Ref("models", "m", endpoint=endpoint), KEYS)
    assert [file.path for file in encoded.files] == [file.path for file in plain.files] == [name]
    assert encoded.revision == plain.revision


@pytest.mark.parametrize("endpoint", [None, "https://minio.example.com"])
def test_who_forgot_the_endpoint_of_another_store_is_told(endpoint: str | None) -> None:
    error = EndpointConnectionError(endpoint_url="https://models.example.com")
    told = judge(error, S3Ref("models", "iris", endpoint=endpoint), {})
    assert told.reason is OriginReason.UNREACHABLE
    assert told.message.endswith("a store that is not AWS needs its endpoint") == (not endpoint)


async def test_a_store_without_a_name_in_the_dns_is_unreachable() -> None:
    with pytest.raises(OriginError) as caught:
        await resolve(S3Ref("models", "m", endpoint="http://store.invalid"), KEYS)
    assert caught.value.reason is OriginReason.UNREACHABLE
    assert not caught.value.stalled
    assert "http://store.invalid" in caught.value.message


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses between two attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    monkeypatch.setattr("beamlit_operator.origins.fetch.time.sleep", lambda _: None)
    monkeypatch.setattr(threading.Event, "wait", _at_once(threading.Event.wait))


def _at_once(wait: Callable[..., bool]) -> Callable[..., bool]:
    def hurried(self: threading.Event, timeout: float | None = None) -> bool:
        named = threading.current_thread().name.startswith("s3")
        return wait(self, 0.0 if named and timeout is not None else timeout)

    return hurried


@pytest.mark.parametrize("status", [429, 503])
def test_a_storm_of_refusals_ends_after_a_bounded_number_of_requests(
    s3: Any, s3_endpoint: str, tmp_path: Path, hasty: None, status: int
) -> None:
    for number in range(20):
        s3.put_object(Bucket="models", Key=f"m/{number}", Body=b"w")
    with FlakyStore(s3_endpoint) as store:
        storm = [status] * 10_000
        store.refuse = list(storm)
        problem = bring(S3Ref("models", "m", endpoint=store.endpoint), tmp_path, KEYS)
        asked_to_list = len(storm) - len(store.refuse)
        store.refuse = []
        store.before_get = lambda number: setattr(store, "refuse", [status] * 10_000)
        problem = bring(S3Ref("models", "m", endpoint=store.endpoint), tmp_path, KEYS)
        asked_to_read = 10_000 - len(store.refuse)
    assert problem.reason is OriginReason.RATE_LIMITED
    # Four looks of four attempts; then eight connections with five times four attempts.
    assert asked_to_list == 16
    assert asked_to_read <= s3_client.MAX_CONNECTIONS * 20


class Server:
    """Answers each connection by itself, byte for byte."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def _serve(self) -> None:
        open_ones = []
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            open_ones.append(connection)
            connection.recv(65536)
            self._behave(connection)
        for connection in open_ones:
            connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stall(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<ListBuck")


@pytest.mark.parametrize("behave", [reset, stall])
async def test_a_store_that_resets_or_stalls_is_given_up_after_four_attempts(
    behave: Callable[[socket.socket], None], hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = s3_client._patience().merge(Config(read_timeout=0.3))
    monkeypatch.setattr(s3_client, "_patience", lambda: patience)
    with Server(behave) as server:
        with pytest.raises(OriginError) as caught:
            await resolve(S3Ref("models", "m", endpoint=server.endpoint), KEYS)
        # The last one may be given up before the server has taken it.
        wait_until(
            lambda: server.connections >= 4, within=30, state=lambda: str(server.connections)
        )
        assert server.connections == 4
    assert caught.value.reason is OriginReason.UNREACHABLE
    assert not caught.value.stalled


def test_a_disk_that_fills_up_during_the_fetch_is_told_and_nothing_is_published(
    s3: Any, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="models", Key="m/weights", Body=b"w" * 300_000)
    monkeypatch.setattr(arriving, "PART_BYTES", 100_000)
    ref = S3Ref("models", "m", endpoint=s3_endpoint)
    pwrite, left = os.pwrite, [100_000]

    def full(descriptor: int, data: Any, offset: int) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= len(data)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    problem = bring(ref, tmp_path, KEYS)
    assert problem.reason is OriginReason.LOCAL_DISK
    assert "No space left on device" in problem.message
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert fetch(ref, tmp_path, credentials=KEYS, report=lambda line: None).files == 1
    assert (tmp_path / "weights").read_bytes() == b"w" * 300_000
