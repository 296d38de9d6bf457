"""A workspace's cache: files come from the store once, and nothing stays that nobody uses."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.flakystore import FlakyStore

from beamlit_operator.kube import (
    DEPLOYMENTS,
    EVENTS,
    MODELS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    Json,
    Resource,
)

from .conftest import Workspace

VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
WITHIN = 60.0


@pytest.fixture
def store(stack) -> Iterator[FlakyStore]:
    with FlakyStore(stack.store) as store:
        yield store


async def with_cache(workspace: Workspace) -> None:
    """The claim, and what every deployment of these tests needs."""
    claim = {
        "metadata": {"name": "cache", "namespace": workspace.name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    await workspace.client.create(PERSISTENT_VOLUME_CLAIMS, {**kind, **claim}, workspace.name)
    for name in ("production", "development"):
        await workspace.apply("Environment", name, {"policies": []})
    await workspace.secret()


async def volume(workspace: Workspace) -> Path:
    """Where the cache is on this machine."""
    claim = await workspace.client.get(PERSISTENT_VOLUME_CLAIMS, "cache", workspace.name)
    found = await workspace.client.get(VOLUMES, claim["spec"]["volumeName"])
    return Path(found["spec"]["hostPath"]["path"])


LOOK = 1
"""Requests by which the operator finds, once for each revision, that the files may be read."""


async def until(workspace: Workspace, ask: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + WITHIN
    while not (found := await ask()):
        assert time.monotonic() < deadline, f"still waiting: {what}\n{workspace.stack.logs()}"
        await asyncio.sleep(0.05)
    return found


async def prefetch(workspace: Workspace, name: str) -> Json:
    model = await workspace.client.get(MODELS, name, workspace.name)
    found: Json = model.get("status", {}).get("prefetch", {})
    return found


async def errands(workspace: Workspace) -> list[Json]:
    selector = "beamlit.com/errand"
    return (await workspace.client.list(PODS, workspace.name, label_selector=selector)).items


async def test_files_come_once_for_all_and_a_start_needs_no_store(workspace, store):
    await with_cache(workspace)
    await workspace.model(store=store.endpoint)
    await workspace.deployment(serverlessConfig={"minNumReplicas": 2})
    await workspace.until(lambda md: md.get("status", {}).get("readyReplicas") == 2)
    runtime = (await workspace.get())["spec"]["runtime"]
    second = {"model": "tiny", "environment": "development", "runtime": runtime}
    await workspace.apply("ModelDeployment", "second", second)
    await workspace.until(lambda md: md.get("status", {}).get("phase") == "Idle", "second")
    status, _ = await workspace.call(query="?environment=development")
    assert status == 200
    assert store.gets == LOOK + 1, "three pods, one file, one request"

    store.refuse = [503] * 10_000
    workspace.stack.kill("operator")
    workspace.stack.start_operator()
    (revision,) = (await workspace.get("second"))["status"]["revisions"]
    await workspace.client.merge_patch(
        DEPLOYMENTS,
        revision["name"],
        {"spec": {"replicas": 0}},
        workspace.name,
        subresource="scale",
    )

    async def gone() -> bool:
        labels = (pod["metadata"]["labels"] for pod in await workspace.pods())
        return all(each.get("beamlit.com/model-deployment") != "second" for each in labels)

    await until(workspace, gone, "the second deployment sleeps")
    status, _ = await workspace.call(query="?environment=development")
    assert status == 200, "it starts from what is in the cache"


async def test_a_model_is_there_before_anybody_asks_and_goes_when_nobody_will(workspace, store):
    await with_cache(workspace)
    # The cache's own pods are within the strictest of Kubernetes' standards.
    standard = {"pod-security.kubernetes.io/enforce": "restricted"}
    await workspace.client.merge_patch(
        NAMESPACES, workspace.name, {"metadata": {"labels": standard}}
    )
    workspace.stack.s3().put_object(Bucket="models", Key="other/weights", Body=b"x" * 100_000)
    await workspace.model(store=store.endpoint)
    await workspace.model("other", uri="s3://models/other", store=store.endpoint)
    for name in ("tiny", "other"):
        await workspace.client.merge_patch(
            MODELS, name, {"spec": {"prefetch": True}}, workspace.name
        )

    async def both_are_done() -> bool:
        told = [await prefetch(workspace, name) for name in ("tiny", "other")]
        return all(each.get("phase") == "Done" for each in told)

    await until(workspace, both_are_done, "both are prefetched")
    assert store.gets == 2 * LOOK + 2
    await workspace.deployment()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
    assert store.gets == 2 * LOOK + 2, "its start found the files"

    root = await volume(workspace)
    kept, unused = [(await prefetch(workspace, name))["folder"] for name in ("tiny", "other")]
    (root / "notes").write_text("of somebody else")
    for folder in (kept, unused):
        assert (root / folder / ".beamlit" / "published.json").exists()
        long_ago = time.time() - 3600
        os.utime(root / folder / ".beamlit" / "used", (long_ago, long_ago))
    await workspace.delete("Model", "other")

    async def tidied() -> bool:
        return not (root / unused).exists() and not await errands(workspace)

    await until(workspace, tidied, "what nobody uses goes, and so do the pods")
    assert {path.name for path in root.iterdir()} == {kept, "notes"}


async def test_a_model_without_a_cache_says_so_and_is_fetched_when_there_is_one(workspace, store):
    await workspace.secret()
    await workspace.model(store=store.endpoint)
    await workspace.client.merge_patch(MODELS, "tiny", {"spec": {"prefetch": True}}, workspace.name)

    async def says_so() -> bool:
        return "has no claim cache" in (await prefetch(workspace, "tiny")).get("message", "")

    await until(workspace, says_so, "the status says that there is no cache")
    assert (await prefetch(workspace, "tiny"))["phase"] == "Pending"
    await with_cache(workspace)

    async def done() -> bool:
        return (await prefetch(workspace, "tiny")).get("phase") == "Done"

    await until(workspace, done, "it is prefetched")


async def test_a_pod_that_may_not_be_made_is_told_once_and_models_run_without_it(workspace, store):
    quota = Resource("", "v1", "resourcequotas", "ResourceQuota")
    only_one = {"metadata": {"name": "pods", "namespace": workspace.name}}
    body = {"apiVersion": "v1", "kind": quota.kind, **only_one, "spec": {"hard": {"pods": "0"}}}
    await workspace.client.create(quota, body, workspace.name)
    await with_cache(workspace)
    await workspace.model(store=store.endpoint)
    await workspace.client.merge_patch(MODELS, "tiny", {"spec": {"prefetch": True}}, workspace.name)

    async def has_failed() -> bool:
        return (await prefetch(workspace, "tiny")).get("phase") == "Failed"

    await until(workspace, has_failed, "the status says that it failed")
    assert "exceeded quota" in (await prefetch(workspace, "tiny"))["message"]
    await workspace.client.delete(quota, "pods", workspace.name)
    await workspace.deployment()
    await workspace.until_ready("Idle")
    assert (await workspace.call())[0] == 200
    events = (await workspace.client.list(EVENTS, workspace.name)).items
    assert [each["reason"] for each in events].count("PrefetchFailed") == 1
