"""A model in a claim: mounted as it is, once it is there, filled and free of programs."""

import asyncio
import pickle
import time
from pathlib import Path

import yaml
from tests.support.stack import ROOT, SERVER

from beamlit_operator.kube import (
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    Resource,
    resource_of,
)

from .conftest import ready

VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
SAMPLE = ROOT / "manifests" / "samples" / "origins" / "pvc.yaml"
COPY = "import shutil, sys; print(shutil.copytree(sys.argv[1], '/data/' + sys.argv[2]))"


async def claim(workspace) -> None:
    resources = {"requests": {"storage": "1Mi"}}
    spec = {"accessModes": ["ReadWriteMany"], "resources": resources}
    await workspace.client.create(
        PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "weights"}, "spec": spec}, workspace.name
    )


async def model(workspace, **part) -> None:
    origin = {"pvc": {"claimName": "weights", "path": "tiny", **part}}
    await workspace.apply("Model", "tiny", {"origin": origin})


async def fill(workspace, source: Path) -> None:
    """A pod of the user's own copies a folder into the claim."""
    main = {
        "name": "copy",
        "image": "beamlit.dev/python:3",
        "args": ["-c", COPY, str(source), "tiny"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "weights"}}
    spec = {"containers": [main], "volumes": [volume], "restartPolicy": "Never"}
    body = {"metadata": {"name": "fill"}, "spec": spec}
    await workspace.client.create(PODS, body, workspace.name)
    await until(lambda: phase_of(workspace, "fill"), "Succeeded")
    await workspace.client.delete(PODS, "fill", workspace.name, grace_period_seconds=0)


async def phase_of(workspace, name: str) -> str:
    return (await workspace.client.get(PODS, name, workspace.name))["status"]["phase"]


async def folder_of(workspace) -> Path:
    found = await workspace.client.get(PERSISTENT_VOLUME_CLAIMS, "weights", workspace.name)
    volume = await workspace.client.get(VOLUMES, found["spec"]["volumeName"])
    return Path(volume["spec"]["hostPath"]["path"])


async def until(ask, wanted) -> None:
    deadline = time.monotonic() + 60
    while (found := await ask()) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def is_there(workspace) -> bool:
    found = await workspace.client.list(PERSISTENT_VOLUME_CLAIMS, workspace.name)
    return any(item["metadata"]["name"] == "weights" for item in found.items)


async def answered(workspace) -> None:
    """What failed is remembered for a moment."""
    await until(lambda: _status(workspace), 200)


async def _status(workspace) -> int:
    return (await workspace.call())[0]


async def test_a_model_in_a_claim_is_served_once_it_is_there_filled_and_no_program(
    workspace, tmp_path
):
    await workspace.apply("Environment", "production", {"policies": []})
    await model(workspace)
    await workspace.deployment()
    missing = await workspace.until_ready("ClaimNotFound")
    assert "weights does not exist" in ready(missing)["message"]
    await claim(workspace)
    before = await workspace.until_ready("Idle")
    status, answer = await workspace.call()
    assert status == 503
    assert "folder tiny of claim weights is not there" in answer["error"]["message"]
    folder = await folder_of(workspace)
    assert list(folder.iterdir()) == []
    (tmp_path / "server.py").write_bytes(SERVER.read_bytes())
    (tmp_path / "weights.bin").write_bytes(pickle.dumps([1]))
    await fill(workspace, tmp_path)
    deadline = time.monotonic() + 60
    while "can run code" not in str((answer := await workspace.call())[1]):
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.5)
    (folder / "tiny" / "weights.bin").unlink()
    await answered(workspace)
    (pod,) = [p for p in await workspace.pods() if p["status"]["phase"] == "Running"]
    assert all("emptyDir" not in v for v in pod["spec"]["volumes"] if v["name"] == "models")
    found = await workspace.client.get(MODELS, "tiny", workspace.name)
    version = found["status"]["origin"]["revision"]
    assert before["status"]["revisions"][0]["version"] == version

    await model(workspace, revision="2")
    after = await workspace.until(
        lambda md: [r["version"] for r in md["status"]["revisions"] if r["traffic"]] != [version]
    )
    assert after["status"]["revisions"]
    await answered(workspace)

    await workspace.client.delete(PERSISTENT_VOLUME_CLAIMS, "weights", workspace.name)
    assert (await workspace.call())[0] == 200
    assert await is_there(workspace)
    await workspace.delete("ModelDeployment", "tiny")
    await until(lambda: is_there(workspace), False)
    await until(lambda: asyncio.to_thread(folder.exists), False)


async def test_the_sample_is_ready_to_start(workspace):
    for item in yaml.safe_load_all(SAMPLE.read_text()):
        resource = resource_of(item["apiVersion"], item["kind"])
        item["metadata"]["namespace"] = workspace.name
        await workspace.client.apply(resource, item, field_manager="test")
    await workspace.until_ready("Idle", "iris-in-a-claim")


async def test_a_runtime_must_be_named_for_files_that_nobody_sees(workspace):
    await workspace.apply("Environment", "production", {"policies": []})
    await claim(workspace)
    await model(workspace)
    await workspace.apply("ModelDeployment", "tiny", {"model": "tiny"})
    refused = await workspace.until_ready("InvalidSpec")
    assert "does not see the files of claim weights" in ready(refused)["message"]
    await workspace.deployment()
    await workspace.until_ready("Idle")
