"""Single pods through the API, as real processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from beamlit_operator.devcluster.kubelet import scratch
from beamlit_operator.kube import CONFIG_MAPS, PODS, ApiError


async def phase(lab: Any, name: str) -> str:
    found = await lab.client.get(PODS, name, "default")
    return str(found.get("status", {}).get("phase"))


async def test_init_containers_run_in_order_and_hand_files_over_in_a_volume(
    lab: Any, make_pod: Any
) -> None:
    mount = {"volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}]}
    image = "beamlit.dev/python:3"
    write = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    inits = [
        {"name": name, "image": image, "args": ["-c", write, "/mnt/models/file", name], **mount}
        for name in ("first", "second")
    ]
    show = "import os; print(open(os.environ['WHERE'] + '/file').read(), os.environ['NAME'])"
    container = {
        **mount,
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "WHERE", "value": "/mnt/models"},
        ],
    }
    body = make_pod(
        "job",
        "-c",
        show,
        container=container,
        initContainers=inits,
        volumes=[{"name": "models", "emptyDir": {}}],
        restartPolicy="Never",
    )
    await lab.client.create(PODS, body)

    async def done() -> bool:
        return await phase(lab, "job") == "Succeeded"

    await lab.until("succeeded", done)
    assert await lab.log("job") == "firstsecond job\n"
    found = await lab.client.get(PODS, "job", "default")
    states = [item["state"]["terminated"] for item in found["status"]["initContainerStatuses"]]
    assert [state["exitCode"] for state in states] == [0, 0]
    folder = lab.cluster.options.data_dir / "pods" / found["metadata"]["uid"]
    temporary = scratch.folder_of(found["metadata"]["uid"])
    assert folder.exists()
    assert temporary.exists()
    await lab.client.delete(PODS, "job", "default")

    async def gone() -> bool:
        return not await lab.pods(app="job") and not (folder.exists() or temporary.exists())

    await lab.until("pod and its files gone", gone)


async def test_a_config_map_volume_and_variables_reach_the_process(lab: Any, make_pod: Any) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default"},
        "data": {"color": "green", "size": "9"},
    }
    await lab.client.create(CONFIG_MAPS, config)
    container = {
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "MY_"}],
        "env": [{"name": "BOTH", "value": "$(MY_color)-$(MY_size)-$$(MY_size)"}],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/settings"}],
    }
    code = "import os; print(os.environ['BOTH'], open('/etc/settings/color').read())"
    body = make_pod(
        "reader",
        "-c",
        code,
        container=container,
        volumes=[{"name": "config", "configMap": {"name": "settings"}}],
        restartPolicy="Never",
    )
    await lab.client.create(PODS, body)

    async def done() -> bool:
        return await phase(lab, "reader") == "Succeeded"

    await lab.until("succeeded", done)
    assert await lab.log("reader") == "green-9-$(MY_size) green\n"


async def test_logs_can_be_followed_until_the_container_ends(lab: Any, make_pod: Any) -> None:
    code = (
        "import time\n"
        "for number in range(5):\n"
        "    print('line', number, flush=True)\n"
        "    time.sleep(0.1)"
    )
    await lab.client.create(PODS, make_pod("chatty", "-c", code, restartPolicy="Never"))

    async def started() -> bool:
        try:
            return bool(await lab.log("chatty"))
        except ApiError:
            return False

    await lab.until("first line", started)
    text = await asyncio.wait_for(lab.log("chatty", follow=True), 60)
    assert text.splitlines() == [f"line {number}" for number in range(5)]
    assert (await lab.log("chatty", tail_lines=2)).splitlines() == ["line 3", "line 4"]
    (stamp, rest) = (await lab.log("chatty", tail_lines=1, timestamps=True)).split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == "line 4\n"


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(
    lab: Any, make_pod: Any
) -> None:
    code = (
        "import signal, time, os\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(600)"
    )
    await lab.client.create(PODS, make_pod("deaf", "-c", code, terminationGracePeriodSeconds=1))

    async def number() -> int:
        try:
            text = await lab.log("deaf")
        except ApiError:
            return 0
        return int(text or 0)

    pid = await lab.until("its process number", number)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await lab.client.delete(PODS, "deaf", "default")

    async def gone() -> bool:
        return not await lab.pods(app="deaf")

    await lab.until("gone", gone)
    assert 0.9 < loop.time() - began < 20
    assert not Path(f"/proc/{pid}").exists()


async def test_a_failing_liveness_probe_restarts_the_container(lab: Any, make_pod: Any) -> None:
    probe = {
        "exec": {"command": ["python", "-c", "import sys; sys.exit(1)"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    body = make_pod(
        "sick",
        "-c",
        "import time; time.sleep(600)",
        container={"livenessProbe": probe},
        terminationGracePeriodSeconds=1,
    )
    await lab.client.create(PODS, body)

    async def restarted() -> bool:
        (found,) = await lab.pods(app="sick")
        statuses = found.get("status", {}).get("containerStatuses") or ()
        return any(item["restartCount"] for item in statuses)

    await lab.until("restarted", restarted)

    async def told() -> bool:
        lines = await lab.events("sick")
        return any("failed liveness probe, will be restarted" in line for line in lines) and any(
            line.startswith("Unhealthy: Liveness probe failed") for line in lines
        )

    await lab.until("events", told)


async def test_a_program_that_does_not_exist_is_a_start_error(lab: Any, make_pod: Any) -> None:
    body = make_pod("lost", container={"command": ["no-such-program"]}, restartPolicy="Never")
    await lab.client.create(PODS, body)

    async def failed() -> bool:
        return await phase(lab, "lost") == "Failed"

    await lab.until("failed", failed)
    (found,) = await lab.pods(app="lost")
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert ended["exitCode"] == 128
    assert "executable file not found in $PATH" in ended["message"]


async def test_a_pod_gets_only_what_it_was_given_of_this_machines_environment(
    lab: Any, make_pod: Any
) -> None:
    os.environ["LEAK_ME"] = "secret"
    try:
        code = "import os; print(sorted(os.environ))"
        await lab.client.create(PODS, make_pod("clean", "-c", code, restartPolicy="Never"))

        async def done() -> bool:
            return await phase(lab, "clean") == "Succeeded"

        await lab.until("succeeded", done)
        assert "LEAK_ME" not in await lab.log("clean")
    finally:
        del os.environ["LEAK_ME"]
