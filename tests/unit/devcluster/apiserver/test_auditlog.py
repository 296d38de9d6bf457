"""Who wrote what, and when, as the audit log tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import CONFIG_MAPS, PODS, ApiError, connect


async def test_every_write_is_told_with_its_answer_and_no_read_is(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    server = ApiServer(tmp_path / "cluster", audit_log=log)
    await server.start()
    try:
        async with await connect(server.kubeconfig(tmp_path / "kubeconfig")) as client:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
            await client.create(CONFIG_MAPS, body, "default")
            with pytest.raises(ApiError):
                await client.create(CONFIG_MAPS, body, "default")
            await client.get(CONFIG_MAPS, "one", "default")
            await client.list(PODS)
            await client.merge_patch(CONFIG_MAPS, "one", {"data": {"a": "b"}}, "default")
            await client.delete(CONFIG_MAPS, "one", "default")
            with pytest.raises(ApiError):
                await client.request("POST", "/api/v1")
    finally:
        await server.stop()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = [
        (event["verb"], event["objectRef"].get("name"), event["responseStatus"]["code"])
        for event in events
    ]
    assert told == [
        ("create", None, 201),
        ("create", None, 409),
        ("patch", "one", 200),
        ("delete", "one", 200),
    ]
    for event in events:
        assert event["user"]["username"] == "devcluster:admin"
        assert event["objectRef"]["resource"] == "configmaps"
        assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]
