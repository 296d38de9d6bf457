"""Starts that take long: what people and callers are told while they wait."""

from __future__ import annotations

import asyncio
import threading

from tests.support.flakystore import FlakyStore
from tests.support.stack import SERVER

from .conftest import ready


async def test_a_long_fetch_is_told_in_bytes_and_by_events(workspace):
    prefix = f"{workspace.name}/slow"
    s3 = workspace.stack.s3()
    s3.upload_file(str(SERVER), "models", f"{prefix}/server.py")
    # More of them than the fetcher brings at a time: some arrive while others are held back.
    for number in range(40):
        s3.put_object(Bucket="models", Key=f"{prefix}/{number:02}.bin", Body=b"x" * 2**16)
    go_on = threading.Event()
    with FlakyStore(workspace.stack.store) as slow:
        slow.before_get = lambda number: number > 21 and go_on.wait(60)
        try:
            await workspace.apply("Environment", "production", {"policies": []})
            await workspace.secret()
            await workspace.model(uri=f"s3://models/{prefix}", store=slow.endpoint)
            await workspace.deployment(envs={"START_SECONDS": "3"})
            await workspace.until_ready("Idle")
            caller = asyncio.create_task(workspace.call())
            told = await workspace.until(
                lambda md: md["status"].get("progress", {}).get("fetchedBytes")
            )
            progress = told["status"]["progress"]
            assert progress["phase"] == "Fetching"
            assert 0 < progress["fetchedBytes"] < progress["totalBytes"]
            assert progress["totalBytes"] == 40 * 2**16 + SERVER.stat().st_size
            assert progress["message"].startswith("fetching ")
            assert ready(told)["reason"] == "Starting"
            assert ready(told)["message"] == progress["message"]
        finally:
            go_on.set()
        loading = await workspace.until(
            lambda md: md["status"].get("progress", {}).get("phase") in ("Loading", None)
        )
        if ready(loading)["status"] != "True":
            assert "model server" in ready(loading)["message"]
        assert (await caller)[0] == 200
    serving = await workspace.until_ready("Serving")
    assert "progress" not in serving["status"]
    events = await asyncio.to_thread(
        workspace.stack.kubectl,
        *("get", "events", "-n", workspace.name, "-o"),
        "jsonpath={range .items[?(@.reason=='Starting')]}{.message}{'\\n'}{end}",
    )
    phases = [line.partition(":")[0] for line in events.splitlines()]
    assert phases.count("Fetching") == 1
    assert len(phases) == len(set(phases)), phases
