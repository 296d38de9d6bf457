"""Hooks, sidecars, startup probes, deadlines and forced deletion, as real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from beamlit_operator.kube import PODS, ApiError

PYTHON = "beamlit.dev/python:3"
SLEEP = "import time; time.sleep(600)"
DEAF = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)"
)


async def status_of(lab: Any, name: str) -> dict[str, Any]:
    found = await lab.client.get(PODS, name, "default")
    return dict(found.get("status") or {})


async def test_a_sidecar_starts_before_and_ends_after_the_main_container(
    lab: Any, make_pod: Any
) -> None:
    sidecar = {
        "name": "side",
        "image": PYTHON,
        "args": ["-c", SLEEP],
        "restartPolicy": "Always",
    }
    body = make_pod("pair", "-c", "pass", initContainers=[sidecar], restartPolicy="Never")
    await lab.client.create(PODS, body)

    async def done() -> bool:
        return (await status_of(lab, "pair")).get("phase") == "Succeeded"

    await lab.until("succeeded", done)

    (side,) = (await status_of(lab, "pair"))["initContainerStatuses"]
    (main,) = (await status_of(lab, "pair"))["containerStatuses"]
    assert side["state"]["terminated"]["exitCode"] == 143
    assert main["state"]["terminated"]["exitCode"] == 0


async def test_a_startup_probe_holds_the_others_back_and_gives_up_at_its_threshold(
    lab: Any, make_pod: Any
) -> None:
    startup = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = {"startupProbe": startup, "livenessProbe": {"exec": {"command": ["false"]}}}
    body = make_pod("never", "-c", SLEEP, container=container, terminationGracePeriodSeconds=0)
    await lab.client.create(PODS, body)

    async def restarted() -> bool:
        statuses = (await status_of(lab, "never")).get("containerStatuses") or ()
        return any(item["restartCount"] for item in statuses)

    await lab.until("restarted", restarted)

    async def told() -> bool:
        lines = await lab.events("never")
        return any("failed startup probe, will be restarted" in line for line in lines)

    await lab.until("event", told)
    assert not any("Liveness" in line for line in await lab.events("never"))


async def test_the_pre_stop_hook_runs_before_sigterm_and_post_start_after_the_start(
    lab: Any, make_pod: Any, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"

    def note(text: str) -> list[str]:
        return ["python", "-c", f"open({str(diary)!r}, 'a').write({text!r})"]

    code = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        f"    open({str(diary)!r}, 'a').write(' term')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    lifecycle = {
        "postStart": {"exec": {"command": note("started")}},
        "preStop": {"exec": {"command": note(" leaving")}},
    }
    await lab.client.create(PODS, make_pod("hooks", "-c", code, container={"lifecycle": lifecycle}))

    async def started() -> bool:
        return diary.exists() and bool(diary.read_text()) and "up" in await lab.log("hooks")

    await lab.until("postStart, and the process hears signals", started)
    await lab.client.delete(PODS, "hooks", "default")

    async def gone() -> bool:
        return not await lab.pods(app="hooks")

    await lab.until("gone", gone)
    assert diary.read_text() == "started leaving term"


async def test_a_pod_past_its_deadline_is_ended_and_says_so(lab: Any, make_pod: Any) -> None:
    body = make_pod("late", "-c", SLEEP, activeDeadlineSeconds=1)
    await lab.client.create(PODS, body)

    async def failed() -> bool:
        return (await status_of(lab, "late")).get("phase") == "Failed"

    await lab.until("failed", failed)
    assert (await status_of(lab, "late"))["reason"] == "DeadlineExceeded"


async def test_a_forced_deletion_removes_the_pod_at_once_and_its_process_soon(
    lab: Any, make_pod: Any, find_processes: Any
) -> None:
    container = {"env": [{"name": "WHO", "value": "forced-one"}]}
    await lab.client.create(PODS, make_pod("stuck", "-c", DEAF, container=container))

    async def up() -> bool:
        try:
            return bool(await lab.log("stuck"))
        except ApiError:
            return False

    await lab.until("up", up)
    await lab.client.delete(PODS, "stuck", "default", grace_period_seconds=0)
    assert not await lab.pods(app="stuck")

    async def ended() -> bool:
        return not find_processes("WHO=forced-one")

    await lab.until("process gone", ended)


async def test_a_shorter_grace_hurries_a_pod_that_is_already_leaving(
    lab: Any, make_pod: Any
) -> None:
    body = make_pod("slow", "-c", DEAF, terminationGracePeriodSeconds=50)
    await lab.client.create(PODS, body)

    async def up() -> bool:
        try:
            return bool(await lab.log("slow"))
        except ApiError:
            return False

    await lab.until("up", up)
    await lab.client.delete(PODS, "slow", "default")
    await asyncio.sleep(0)
    await lab.client.delete(PODS, "slow", "default", grace_period_seconds=1)

    async def gone() -> bool:
        return not await lab.pods(app="slow")

    await lab.until("gone", gone, seconds=40)
