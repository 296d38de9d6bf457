"""A model from the Hugging Face Hub, from its revision to its answer."""

import pytest
from tests.support.stack import SERVER

from beamlit_operator.kube import MODELS

from .conftest import ready

TOKEN = "hf_of-this-team"


@pytest.fixture
def repo(workspace):
    """A private repository, of which one token may read."""
    hub, name = workspace.stack.hub, f"{workspace.name}/tiny"
    hub.tokens.add(TOKEN)
    sha = hub.add(name, {"server.py": SERVER.read_bytes(), "config.json": b"{}"})
    hub.repos[name].private = True
    hub.repos[name].granted = {TOKEN}
    return name, sha


async def test_a_private_repository_is_served_at_its_commit(workspace, repo):
    name, sha = repo
    await workspace.apply("Environment", "production", {"policies": []})
    origin = {"huggingFace": {"repo": name, "tokenSecretRef": {"name": "hub"}}}
    await workspace.apply("Model", "tiny", {"origin": origin})
    await workspace.deployment()
    missing = await workspace.until(lambda md: "hub" in ready(md)["message"])
    assert ready(missing)["status"] == "False"
    await workspace.apply("Secret", "hub", stringData={"token": TOKEN})
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
    serving = await workspace.until_ready("Serving")
    assert [r["version"] for r in serving["status"]["revisions"]] == [sha]
    model = await workspace.client.get(MODELS, "tiny", workspace.name)
    assert model["status"]["origin"]["revision"] == sha
    assert model["status"]["origin"]["files"] == 2


async def test_a_workspace_integration_opens_what_names_no_secret(workspace, repo):
    name, _ = repo
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.apply("Model", "tiny", {"origin": {"huggingFace": {"repo": name}}})
    await workspace.deployment()
    closed = await workspace.until(lambda md: name in ready(md)["message"])
    assert ready(closed)["status"] == "False"
    assert TOKEN not in str(closed)
    integration = {
        "stringData": {"token": TOKEN},
        "labels": {"beamlit.com/integration": "huggingface"},
    }
    await workspace.apply(
        "Secret", "integration", **integration, annotations={"beamlit.com/allowed": "else/*"}
    )
    scoped = await workspace.until(lambda md: "(IntegrationNotAllowed)" in ready(md)["message"])
    assert f"beamlit.com/allowed (else/*) does not cover {name}" in ready(scoped)["message"]
    assert "Secret integration" in ready(scoped)["message"]
    allowed = {"beamlit.com/allowed": f"else/*, {workspace.name}/*"}
    await workspace.apply("Secret", "integration", **integration, annotations=allowed)
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200


async def test_a_mirror_that_a_model_names_gets_no_token_that_its_secret_did_not_send_there(
    workspace, repo
):
    name, _ = repo
    hub = workspace.stack.hub
    mirror = hub.endpoint.replace("127.0.0.1", "localhost")
    host = mirror.removeprefix("http://")
    await workspace.apply("Environment", "production", {"policies": []})
    integration = {
        "stringData": {"token": TOKEN},
        "labels": {"beamlit.com/integration": "huggingface"},
    }
    await workspace.apply("Secret", "integration", **integration)
    origin = {"huggingFace": {"repo": name, "endpoint": mirror}}
    await workspace.apply("Model", "tiny", {"origin": origin})
    await workspace.deployment()
    withheld = await workspace.until(lambda md: "(IntegrationNotAllowed)" in ready(md)["message"])
    assert f"not sent to {mirror}" in ready(withheld)["message"]
    assert {given for asked, given in hub.shown if asked == host} == {""}
    integration["stringData"] = {"token": TOKEN, "endpoint": f"{mirror}/"}
    await workspace.apply("Secret", "integration", **integration)
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
    assert f"Bearer {TOKEN}" in {given for asked, given in hub.shown if asked == host}
