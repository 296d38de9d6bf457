"""Models from web servers and in archives, from a digest to an answer."""

import asyncio
import hashlib
import io
import tarfile
import time

import pytest
from tests.support.stack import SERVER
from tests.support.webstore import WebStore

from .conftest import ready

TOKEN = "token-of-this-team"


@pytest.fixture
def store():
    files = {"m/server.py": SERVER.read_bytes(), "m/config.json": b"{}"}
    with WebStore(files=files, authorization=f"Bearer {TOKEN}") as running:
        yield running


def origin(store, sha256=""):
    """Two files, the server with a wrong digest if one is given."""
    digest = sha256 or hashlib.sha256(store.files["m/server.py"]).hexdigest()
    files = [
        {"url": store.url("m/server.py"), "sha256": digest},
        {"url": store.url("m/config.json"), "sha256": hashlib.sha256(b"{}").hexdigest()},
    ]
    return {"origin": {"http": {"files": files, "credentialsSecretRef": {"name": "web"}}}}


async def served(workspace):
    """Calls until there is an answer: what failed is remembered for a moment."""
    deadline = time.monotonic() + 60
    while (answer := await workspace.call())[0] != 200:  # what failed is remembered for a moment
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.5)


@pytest.mark.long
async def test_files_of_a_web_server_are_served_once_their_digests_are_right(workspace, store):
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.apply("Model", "tiny", origin(store, sha256="0" * 64))
    await workspace.deployment()
    await workspace.until(lambda md: "Secret web does not exist" in ready(md)["message"])
    await workspace.apply("Secret", "web", stringData={"token": TOKEN})
    before = await workspace.until_ready("Idle")
    status, answer = await workspace.call()
    assert status == 503
    assert "correct the digest" in answer["error"]["message"]
    await workspace.apply("Model", "tiny", origin(store))
    after = await workspace.until(
        lambda md: (
            md["status"]["revisions"][0]["version"] != before["status"]["revisions"][0]["version"]
        )
    )
    assert len(after["status"]["revisions"][0]["version"]) == len("sha256:") + 64
    await served(workspace)
    assert TOKEN not in str(after) + workspace.stack.logs()


async def test_a_model_in_an_archive_is_served(workspace, store):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(SERVER, arcname="./server.py")
    store.authorization = ""
    store.files["model.tar.gz"] = packed.getvalue()
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    files = [{"url": store.url("model.tar.gz"), "sha256": digest}]
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.apply("Model", "tiny", {"origin": {"http": {"files": files}}, "unpack": True})
    await workspace.deployment()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200


@pytest.mark.long
async def test_a_token_that_rotates_while_a_fetch_fails_is_used_by_the_next(workspace, store):
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.apply("Secret", "web", stringData={"token": TOKEN})
    await workspace.apply("Model", "tiny", origin(store))
    await workspace.deployment()
    await workspace.until_ready("Idle")
    store.authorization = "Bearer another"
    status, answer = await workspace.call()
    assert status == 503
    assert "does not accept the credentials" in answer["error"]["message"]
    await workspace.apply("Secret", "web", stringData={"token": "another"})
    await served(workspace)
    assert TOKEN not in str(await workspace.get()) + workspace.stack.logs()
