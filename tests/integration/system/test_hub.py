"""A model from the Hugging Face Hub, from its revision to its answer."""

import pytest
from tests.support.stack import SERVER

from beamlit_operator.kube import MODELS

from .conftest import ready

pytestmark = pytest.mark.xdist_group("system")

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
    await workspace.apply(
        "Secret",
        "integration",
        stringData={"token": TOKEN},
        labels={"beamlit.com/integration": "huggingface"},
    )
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
