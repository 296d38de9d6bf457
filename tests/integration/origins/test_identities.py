"""Who asks a store: a role for a token, the node or the pod, and nobody who was not told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.identitystore import IdentityStore

from beamlit_operator.origins import OriginError, OriginReason, S3Ref, resolve
from beamlit_operator.origins.fetch import fetch
from beamlit_operator.origins.fetching import arriving
from beamlit_operator.origins.stores import identity, s3_client

ROLE = "arn:aws:iam::111122223333:role/models"
TOKEN = "header.claims-of-the-pod.signature"
CONTENT = os.urandom(400_000)


@pytest.fixture
def store(s3: Any, s3_endpoint: str) -> Iterator[IdentityStore]:
    s3.put_object(Bucket="models", Key="m/weights", Body=CONTENT)
    with IdentityStore(s3_endpoint) as store:
        yield store


def role(store: IdentityStore, **more: str) -> dict[str, str]:
    return {
        "AWS_ROLE_ARN": ROLE,
        "AWS_ROLE_SESSION_NAME": "team.iris",
        "AWS_WEB_IDENTITY_TOKEN": TOKEN,
        "AWS_ENDPOINT_URL_STS": store.endpoint,
        **more,
    }


def ref(store: IdentityStore) -> S3Ref:
    return S3Ref("models", "m", endpoint=store.endpoint)


def run(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fetcher, as a pod runs it."""
    known = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "BEAMLIT_"))}
    return subprocess.run(
        [sys.executable, "-m", "beamlit_operator.origins", "s3://models/m", str(directory)],
        env={**known, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_a_token_is_exchanged_for_the_role_once_for_many_looks(store: IdentityStore) -> None:
    for _ in range(3):
        found = await resolve(ref(store), role(store))
    assert [file.path for file in found.files] == ["weights"]
    (asked,) = store.exchanged
    assert asked["RoleArn"] == ROLE
    assert asked["RoleSessionName"] == "team.iris"
    assert asked["WebIdentityToken"] == TOKEN
    assert set(store.callers) == {"ASIA0000000000000001"}


async def test_two_tokens_are_two_callers(store: IdentityStore) -> None:
    await resolve(ref(store), role(store))
    await resolve(ref(store), role(store, AWS_WEB_IDENTITY_TOKEN="another"))
    assert [each["WebIdentityToken"] for each in store.exchanged] == [TOKEN, "another"]


async def test_moto_s_own_token_service_is_understood(s3: Any, s3_endpoint: str) -> None:
    s3.put_object(Bucket="models", Key="m/weights", Body=b"x")
    credentials = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/models",
        "AWS_WEB_IDENTITY_TOKEN": TOKEN,
        "AWS_ENDPOINT_URL_STS": s3_endpoint,
    }
    found = await resolve(S3Ref("models", "m", endpoint=s3_endpoint), credentials)
    assert found.bytes == 1


def test_a_fetch_that_outlives_its_credentials_gets_new_ones_for_the_token_of_then(
    store: IdentityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "PART_BYTES", 50_000)
    monkeypatch.setattr("beamlit_operator.origins.stores.s3.MAX_CONNECTIONS", 1)
    token = tmp_path / "token"
    token.write_text("first\n")
    store.lives, store.delay = 2.0, 0.4
    credentials = role(store, AWS_WEB_IDENTITY_TOKEN="", AWS_WEB_IDENTITY_TOKEN_FILE=str(token))
    lines: list[str] = []

    def renewed(line: str) -> None:
        lines.append(line)
        token.write_text("second\n")  # as the kubelet does

    fetch(ref(store), tmp_path / "model", credentials=credentials, report=renewed)
    assert (tmp_path / "model" / "weights").read_bytes() == CONTENT
    tokens = [each["WebIdentityToken"] for each in store.exchanged]
    assert tokens[0] == "first"
    assert tokens[-1] == "second"
    assert store.expired == 0


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (400, "InvalidIdentityToken", OriginReason.CREDENTIALS_INVALID, "identity provider"),
        (400, "ExpiredTokenException", OriginReason.CREDENTIALS_INVALID, "identity provider"),
        (403, "AccessDenied", OriginReason.ACCESS_DENIED, "trust policy"),
        (400, "ValidationError", OriginReason.CREDENTIALS_INVALID, "ValidationError"),
        (400, "Throttling", OriginReason.RATE_LIMITED, "slow down"),
        (500, "InternalFailure", OriginReason.UNREACHABLE, "500"),
    ],
)
async def test_an_exchange_that_fails_says_what_to_do_and_no_token(
    store: IdentityStore,
    status: int,
    code: str,
    reason: OriginReason,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    store.refuse = (status, code)
    with pytest.raises(OriginError) as caught:
        await resolve(ref(store), role(store))
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert ROLE in caught.value.message
    assert TOKEN not in caught.value.message
    assert store.callers == []
    store.refuse = None
    assert (await resolve(ref(store), role(store))).files


async def test_a_token_that_cannot_be_read_is_named(store: IdentityStore, tmp_path: Path) -> None:
    missing = {"AWS_WEB_IDENTITY_TOKEN": "", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "no")}
    with pytest.raises(OriginError) as caught:
        await resolve(ref(store), role(store, **missing))
    assert caught.value.reason is OriginReason.CREDENTIALS_INVALID
    assert "cannot be read" in caught.value.message


@pytest.mark.parametrize(
    ("place", "words"),
    [("http://127.0.0.1:1", "refuses connections"), ("http://nowhere.invalid", "no address")],
)
async def test_a_token_service_that_is_away_is_named(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with pytest.raises(OriginError) as caught:
        await resolve(ref(store), role(store, AWS_ENDPOINT_URL_STS=place))
    assert caught.value.reason is OriginReason.UNREACHABLE
    assert place in caught.value.message
    assert words in caught.value.message


def test_a_pod_exchanges_the_token_it_was_given_and_says_nothing_of_it(
    store: IdentityStore, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    told = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ROLE_ARN": ROLE,
        "AWS_ROLE_SESSION_NAME": "team.iris",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL_STS": store.endpoint,
    }
    done = run(tmp_path / "model", **told)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "weights").read_bytes() == CONTENT
    store.refuse = (400, "InvalidIdentityToken")
    failed = run(tmp_path / "other", **told)
    assert failed.returncode == 1
    assert "identity provider" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert TOKEN not in done.stderr + failed.stderr


async def test_an_instance_profile_signs_and_without_the_word_nothing_does(
    s3_endpoint: str, answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s3_endpoint)
    monkeypatch.setattr(identity, "_of_node", None)
    # It reads the variable when it is made.
    s3_client._session.cache_clear()
    seen: list[str | None] = []
    async with answering(403, "<Error><Code>AccessDenied</Code></Error>", seen) as endpoint:
        messages = []
        for credentials in ({"BEAMLIT_NODE_CREDENTIALS": "true"}, {}):
            with pytest.raises(OriginError) as caught:
                await resolve(S3Ref("models", "m", endpoint=endpoint), credentials)
            messages.append(caught.value.message)
    assert "Credential=test-key/" in str(seen[0])
    assert seen[-1] is None
    assert "the identity of the node or pod" in messages[0]
    assert "anonymous" in messages[1]


def test_a_pod_identity_agent_is_asked_with_the_token_that_it_wants(
    s3: Any, s3_endpoint: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket="models", Key="m/weights", Body=CONTENT)
    script = tmp_path / "agent.py"
    script.write_text(AGENT)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as agent:
        try:
            assert agent.stdout is not None
            port = agent.stdout.readline().strip()
            done = run(
                tmp_path / "model",
                AWS_ENDPOINT_URL=s3_endpoint,
                BEAMLIT_NODE_CREDENTIALS="true",
                AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{port}/v1/credentials",
                AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token),
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(agent.stdout.readline()) == ["/v1/credentials", TOKEN]
        finally:
            agent.kill()


AGENT = """
import http.server, json
class Agent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(json.dumps([self.path, self.headers["Authorization"]]), flush=True)
        body = json.dumps({"AccessKeyId": "AKIAPOD", "SecretAccessKey": "s", "Token": "t",
                           "Expiration": "2100-01-01T00:00:00Z"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Agent)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_node_without_an_identity_says_how_to_give_it_one(tmp_path: Path) -> None:
    done = run(
        tmp_path / "model",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:1",
        BEAMLIT_NODE_CREDENTIALS="true",
    )
    assert done.returncode == 1
    assert "instance profile" in done.stderr
