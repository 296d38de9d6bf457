"""A model from a container registry, from its tag to its answer."""

import base64

import pytest
from tests.support.registry import Registry, docker_config
from tests.support.stack import SERVER

from .conftest import ready


@pytest.fixture
def registry():
    with Registry(scheme="Bearer", accounts={"anna": "open-sesame"}) as running:
        yield running


async def test_an_artifact_is_pulled_with_a_secret_and_served_by_its_digest(workspace, registry):
    files = {"server.py": SERVER.read_bytes(), "config.json": b"{}"}
    made = registry.artifact("acme/tiny", "v1", files)
    await workspace.apply("Environment", "production", {"policies": []})
    reference = f"{registry.host}/acme/tiny:v1"
    origin = {"oci": {"reference": reference, "pullSecretRef": {"name": "pull"}}}
    await workspace.apply("Model", "tiny", {"origin": origin})
    await workspace.deployment()
    await workspace.until(lambda md: "Secret pull does not exist" in ready(md)["message"])
    config = docker_config(registry.host, "anna", "open-sesame").encode()
    await workspace.apply(
        "Secret",
        "pull",
        type="kubernetes.io/dockerconfigjson",
        data={".dockerconfigjson": base64.b64encode(config).decode()},
    )
    found = await workspace.until_ready("Idle")
    assert found["status"]["revisions"][0]["version"] == made
    status, _ = await workspace.call()
    assert status == 200
    assert "open-sesame" not in str(found) + workspace.stack.logs()
