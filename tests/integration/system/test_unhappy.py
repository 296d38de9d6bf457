"""What is wrong is said, harms nobody else, and mends itself when the cause goes."""

import asyncio
import time

import pytest
from tests.support.stack import SERVER

from beamlit_operator.kube import ApiError

from .conftest import ready

KINDS = "models,modeldeployments,environments,policies"


async def test_what_is_missing_is_named_and_its_arrival_is_enough(workspace):
    location = {"type": "location", "locations": [{"type": "country", "name": "us"}]}
    await workspace.deployment(policies=[{"name": "us-only"}])
    missing = await workspace.until_ready("ModelNotFound")
    assert "tiny" in ready(missing)["message"]
    await workspace.model(uri="s3://empty-bucket/tiny")
    missing = await workspace.until_ready("EnvironmentNotFound")
    assert "production" in ready(missing)["message"]
    await workspace.apply("Environment", "production", {"policies": []})
    missing = await workspace.until_ready("PolicyNotFound")
    assert "us-only" in ready(missing)["message"]
    await workspace.apply("Policy", "us-only", location)
    missing = await workspace.until(lambda md: "store" in ready(md)["message"])
    assert ready(missing)["status"] == "False"
    await workspace.secret()
    missing = await workspace.until(lambda md: "empty-bucket" in ready(md)["message"])
    assert ready(missing)["status"] == "False"
    assert await workspace.pods() == []
    await workspace.model()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200


async def test_a_server_that_crashes_at_start_answers_503_with_its_reason(workspace):
    await workspace.quickstart(envs={"CRASH": "the weights do not fit"})
    await workspace.model("good")
    await workspace.deployment("good")
    assert (await workspace.call(model="good"))[0] == 200
    started = time.monotonic()
    status, body = await workspace.call()
    assert status == 503
    assert time.monotonic() - started < 50
    assert body["error"]["reason"] == "StartFailed"
    assert "the weights do not fit" in body["error"]["message"]
    failed = await workspace.until_ready("StartFailed")
    assert "the weights do not fit" in ready(failed)["message"]
    assert (await workspace.call(model="good"))[0] == 200
    await workspace.deployment(envs={})
    await workspace.until(lambda md: ready(md)["status"] == "True")
    assert (await workspace.call())[0] == 200


async def test_killing_the_operator_loses_no_request(workspace):
    await workspace.quickstart(envs={"START_SECONDS": "2"})
    await workspace.until_ready("Idle")
    held = asyncio.create_task(workspace.call())
    while not await workspace.pods():
        await asyncio.sleep(0.02)
    workspace.stack.kill("operator")
    try:
        assert (await held)[0] == 200
        served = asyncio.create_task(workspace.call(query="?seconds=1"))
        workspace.stack.start_operator()
        assert (await served)[0] == 200
    finally:
        if workspace.stack.is_down("operator"):
            workspace.stack.start_operator()
    await workspace.until_ready("Serving")


async def test_a_deployment_wakes_while_the_operator_is_away(workspace):
    await workspace.quickstart()
    await workspace.until_ready("Idle")
    workspace.stack.kill("operator")
    try:
        assert (await workspace.call())[0] == 200
    finally:
        workspace.stack.start_operator()
    await workspace.until_ready("Serving")


@pytest.mark.long
async def test_files_that_changed_in_the_store_are_served_as_they_are_now(workspace):
    upload = workspace.stack.s3().put_object
    changing = {"Bucket": "models", "Key": f"{workspace.name}/server.py"}
    upload(**changing, Body=SERVER.read_bytes())
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.secret()
    await workspace.model(uri=f"s3://models/{workspace.name}")
    await workspace.deployment(rollout={"retention": "1s"})
    (before,) = (await workspace.until_ready("Idle"))["status"]["revisions"]
    upload(**changing, Body=SERVER.read_bytes() + b"\n")
    deadline = time.monotonic() + 60
    while (answer := await workspace.call())[0] != 200:
        assert time.monotonic() < deadline, answer
        assert "changed" in answer[1]["error"]["message"]
        await asyncio.sleep(0.5)
    serving = await workspace.until(lambda md: len(md["status"]["revisions"]) == 1)
    assert serving["status"]["revisions"][0]["version"] != before["version"]


FILE = {"url": "https://a/b", "sha256": "ab" * 32}


async def test_a_field_without_effect_yet_is_refused_by_name(workspace):
    await workspace.quickstart(modelSourceRef={"name": "mine"})
    refused = await workspace.until_ready("UnsupportedField")
    assert "spec.modelSourceRef" in ready(refused)["message"]


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Policy", {"type": "colour"}, ("spec.type", "location")),
        ("Policy", {"type": "location"}, ("spec.locations", "at least one entry")),
        (
            "Policy",
            {"type": "location", "locations": [{"type": "country", "name": "usa"}]},
            ("spec.locations[0].name", "two ISO 3166 letters"),
        ),
        ("Model", {"origin": {}}, ("spec.origin", "exactly one of")),
        ("Model", {"origin": {"s3": {"uri": "gs://x/y"}}}, ("spec.origin.s3.uri",)),
        (
            "Model",
            {
                "origin": {
                    "s3": {
                        "uri": "s3://models/x",
                        "nodeCredentials": True,
                        "webIdentity": {"serviceAccountName": "reader"},
                    }
                }
            },
            ("spec.origin.s3", "at most one of credentialsSecretRef, webIdentity"),
        ),
        (
            "Model",
            {
                "origin": {
                    "s3": {
                        "uri": "s3://models/x",
                        "webIdentity": {
                            "serviceAccountName": "reader",
                            "audience": "https://kubernetes.default.svc",
                        },
                    }
                }
            },
            ("spec.origin.s3.webIdentity", "name the store's audience"),
        ),
        (
            "Model",
            {"origin": {"s3": {"uri": "s3://models/x", "versioned": True, "versionId": "v1"}}},
            ("spec.origin.s3", "remove versioned or versionId"),
        ),
        *[
            ("Model", {"origin": {"http": {"files": files}}}, words)
            for files, words in (
                ([], ("spec.origin.http.files",)),
                ([{"url": "https://a/b"}], ("spec.origin.http.files[0].sha256",)),
                ([{**FILE, "sha256": "short"}], ("spec.origin.http.files[0].sha256",)),
                ([{**FILE, "url": "https://me:pw@a/b"}], ("spec.origin.http.files[0].url",)),
                ([{**FILE, "path": "a/../../b"}], ("spec.origin.http.files[0].path",)),
                ([{**FILE, "path": "/b"}], ("spec.origin.http.files[0].path",)),
                ([{**FILE, "path": "b"}] * 2, ("two files have the same path",)),
            )
        ],
        *[
            ("Model", {"origin": {"pvc": part}}, words)
            for part, words in (
                ({}, ("spec.origin.pvc.claimName",)),
                ({"claimName": "Not_A_Name"}, ("spec.origin.pvc.claimName",)),
                ({"claimName": "c", "path": "../up"}, ("spec.origin.pvc.path",)),
                ({"claimName": "c", "path": "/a"}, ("spec.origin.pvc.path",)),
                ({"claimName": "c", "path": "a//b"}, ("spec.origin.pvc.path",)),
            )
        ],
        *[
            (
                "Model",
                {"origin": {"pvc": {"claimName": "c"}}, name: True},
                (f"{name} has no meaning with origin.pvc",),
            )
            for name in ("unpack", "prefetch")
        ],
        (
            "Model",
            {"origin": {"pvc": {"claimName": "c"}, "s3": {"uri": "s3://abc/d"}}},
            ("spec.origin", "exactly one of"),
        ),
        ("ModelDeployment", {}, ("spec.model",)),
        (
            "ModelDeployment",
            {"model": "m", "serverlessConfig": {"minNumReplicas": 5, "maxNumReplicas": 2}},
            ("spec.serverlessConfig.minNumReplicas", "must not be above"),
        ),
        (
            "ModelDeployment",
            {"model": "m", "serverlessConfig": {"metric": "memory"}},
            ("spec.serverlessConfig.target", "must be set with metric memory"),
        ),
        (
            "ModelDeployment",
            {"model": "m", "serverlessConfig": {"stableWindow": "soon"}},
            ("spec.serverlessConfig.stableWindow",),
        ),
        (
            "ModelDeployment",
            {
                "model": "m",
                "flavors": [{"type": "cpu", "name": "x86"}, {"type": "gpu", "name": "t4"}],
            },
            ("spec.flavors", "never both"),
        ),
        (
            "ModelDeployment",
            {"model": "m", "endpoint": {"maxQueued": 5}},
            ("spec.endpoint.maxQueued", "needs maxConcurrency"),
        ),
        (
            "ModelDeployment",
            {"model": "m", "endpoint": {"prefixLength": 5}},
            ("spec.endpoint.prefixLength", "PromptPrefix only"),
        ),
        (
            "ModelDeployment",
            {"model": "m", "runtime": {"appProtocol": "grpc"}},
            ("spec.runtime.appProtocol", "kubernetes.io/h2c"),
        ),
    ],
)
async def test_a_malformed_manifest_is_refused_with_the_field_and_the_fix(
    workspace, kind, spec, words
):
    with pytest.raises(ApiError) as refused:
        await workspace.apply(kind, "bad", spec)
    assert refused.value.status == 422
    for word in words:
        assert word in refused.value.message


async def test_no_secret_appears_in_what_the_system_says(workspace):
    await workspace.quickstart()
    assert (await workspace.call())[0] == 200
    shown = await asyncio.to_thread(
        workspace.stack.kubectl,
        *("get", f"{KINDS},events,deployments,pods", "-n", workspace.name, "-o", "yaml"),
    )
    assert "testing-secret" not in shown
    assert "testing-secret" not in workspace.stack.logs()
