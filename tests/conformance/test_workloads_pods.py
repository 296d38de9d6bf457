"""What a pod's processes are given, in which order they run, and how they end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import CONFIG_MAPS, PODS, SECRETS, ApiError

from .workloads import SLEEP, Workspace, container, main_status


@pytest.fixture(scope="session")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


async def _sources(workspace: Workspace) -> None:
    client, namespace = workspace.client, workspace.namespace
    secret = {"metadata": {"name": "key"}, "stringData": {"token": "s3cret"}}
    config = {"metadata": {"name": "options"}, "data": {"color": "red", "SIZE": "9"}}
    await client.create(SECRETS, secret, namespace)
    await client.create(CONFIG_MAPS, config, namespace)


async def test_variables_come_from_secrets_config_maps_and_fields(workspace: Workspace) -> None:
    await _sources(workspace)
    env = [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "options", "key": "color"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "BOTH", "value": "$(COLOR)-$(NAME)-$$(NAME)-$(NONE)"},
        {
            "name": "MAYBE",
            "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}},
        },
    ]
    main = {
        "env": env,
        "envFrom": [{"prefix": "CFG_", "configMapRef": {"name": "options"}}],
        "resources": {"limits": {"cpu": "1"}},
    }
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    found = json.loads(await workspace.output(workspace.pod("one", code, main=main)))
    address = (await workspace.get("one"))["status"]["podIP"]
    wanted = {
        "TOKEN": "s3cret",
        "COLOR": "red",
        "NAME": "one",
        "LABEL": "one",
        "ADDRESS": address,
        "CPUS": "1",
        "BOTH": "red-one-$(NAME)-$(NONE)",
        "CFG_color": "red",
        "CFG_SIZE": "9",
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert "MAYBE" not in found


async def test_a_missing_secret_is_named_and_awaited(workspace: Workspace) -> None:
    reference = {"secretKeyRef": {"name": "key", "key": "token"}}
    main = {"env": [{"name": "TOKEN", "valueFrom": reference}]}
    code = "import os; print(os.environ['TOKEN'])"
    await workspace.start(workspace.pod("one", code, main=main))

    async def waiting() -> Any:
        state = main_status(await workspace.get("one")).get("state", {}).get("waiting", {})
        return state if state.get("reason") == "CreateContainerConfigError" else None

    assert (await workspace.until(waiting))["message"] == 'secret "key" not found'
    await _sources(workspace)
    await workspace.until_phase("one", "Succeeded")
    assert await workspace.log("one") == "s3cret\n"


async def test_volumes_hold_files_and_init_containers_run_in_order(workspace: Workspace) -> None:
    await _sources(workspace)
    field = {"path": "labels/app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}
    projected = [
        {"secret": {"name": "key", "items": [{"key": "token", "path": "deep/token"}]}},
        {"configMap": {"name": "options"}},
        {"downwardAPI": {"items": [field]}},
    ]
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "secret", "secret": {"secretName": "key", "defaultMode": 0o400}},
        {"name": "config", "configMap": {"name": "options", "optional": True}},
        {"name": "none", "configMap": {"name": "nowhere", "optional": True}},
        {"name": "all", "projected": {"sources": projected}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/mnt/{volume['name']}"} for volume in volumes]
    write = "open('/mnt/work/order', 'a').write('{} ')"
    inits = [
        container(workspace.image, write.format(name), volumeMounts=mounts) | {"name": name}
        for name in ("first", "second")
    ]
    roots = {volume["name"]: f"/mnt/{volume['name']}" for volume in volumes}
    code = f"""
import json, os
found = {{}}
for name, root in {roots!r}.items():
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = [i for i in inner if not i.startswith('..')]  # where a kubelet keeps versions
        for file in files:
            path = os.path.join(folder, file)
            found[os.path.join(name, os.path.relpath(path, root))] = open(path).read()
print(json.dumps(found))
"""
    pod = workspace.pod(
        "one", code, main={"volumeMounts": mounts}, volumes=volumes, initContainers=inits
    )
    assert json.loads(await workspace.output(pod)) == {
        "all/SIZE": "9",
        "all/color": "red",
        "all/deep/token": "s3cret",
        "all/labels/app": "one",
        "config/SIZE": "9",
        "config/color": "red",
        "secret/token": "s3cret",
        "work/order": "first second ",
    }
    statuses = (await workspace.get("one"))["status"]["initContainerStatuses"]
    assert [s["state"]["terminated"]["reason"] for s in statuses] == ["Completed", "Completed"]


async def test_a_pod_has_a_token_of_its_account_and_folders_of_its_node(
    workspace: Workspace,
) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    volumes = [
        {"name": "identity", "projected": {"sources": [token]}},
        {"name": "host", "hostPath": {"path": "/tmp", "type": "Directory"}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/mnt/{volume['name']}"} for volume in volumes]
    code = """
import base64, json, os
body = open('/mnt/identity/token').read().split('.')[1]
claims = json.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))
print(json.dumps([claims['sub'], os.path.isdir('/mnt/host')]))
"""
    pod = workspace.pod("one", code, main={"volumeMounts": mounts}, volumes=volumes)
    account = f"system:serviceaccount:{workspace.namespace}:default"
    assert json.loads(await workspace.output(pod)) == [account, True]


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(
    workspace: Workspace,
) -> None:
    init = container(workspace.image, "raise SystemExit(3)") | {"name": "first"}
    await workspace.start(workspace.pod("one", "print('never')", initContainers=[init]))
    pod = await workspace.until_phase("one", "Failed")
    (status,) = pod["status"]["initContainerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 3
    assert main_status(pod)["state"]["waiting"]["reason"] == "PodInitializing"


async def test_a_crashing_container_backs_off_with_its_last_words(workspace: Workspace) -> None:
    main = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    code = "print('no model here'); raise SystemExit(4)"
    await workspace.start(workspace.pod("one", code, main=main, restartPolicy="Always"))

    async def backing_off() -> Any:
        status = main_status(await workspace.get("one"))
        waiting = status.get("state", {}).get("waiting", {})
        return status if waiting.get("reason") == "CrashLoopBackOff" else None

    status = await workspace.until(backing_off)
    assert status["lastState"]["terminated"]["exitCode"] == 4
    assert status["lastState"]["terminated"]["message"].strip() == "no model here"
    assert status["state"]["waiting"]["message"].startswith("back-off ")
    assert await workspace.log("one", previous="true") == "no model here\n"


async def test_on_failure_restarts_what_failed_and_nothing_else(workspace: Workspace) -> None:
    code = """
import pathlib
mark = pathlib.Path('/mnt/work/mark')
if not mark.exists():
    mark.touch()
    raise SystemExit(1)
"""
    pod = workspace.pod(
        "one",
        code,
        main={"volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}]},
        volumes=[{"name": "work", "emptyDir": {}}],
        restartPolicy="OnFailure",
    )
    await workspace.start(pod)
    status = main_status(await workspace.until_phase("one", "Succeeded"))
    assert status["restartCount"] == 1


async def test_the_pre_stop_hook_runs_before_sigterm_within_the_grace(workspace: Workspace) -> None:
    """Seen in the last log lines: followed, because they go away with the pod."""
    hook = "open('/mnt/work/hook', 'w').write('hooked')"
    code = """
import pathlib, signal, sys, time
def end(*_):
    print('term after', pathlib.Path('/mnt/work/hook').read_text())
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print('up')
while True:
    time.sleep(0.05)
"""
    main = {
        "volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}],
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-c", hook]}}},
    }
    pod = workspace.pod(
        "one",
        code,
        main=main,
        volumes=[{"name": "work", "emptyDir": {}}],
        terminationGracePeriodSeconds=20,
    )
    await workspace.start(pod)
    await workspace.until_ready("one")
    following = asyncio.create_task(workspace.log("one", follow="true"))

    async def up() -> bool:
        return "up" in await workspace.log("one")

    await workspace.until(up)
    await workspace.client.delete(PODS, "one", workspace.namespace)
    leaving = await workspace.get("one")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 20
    async with asyncio.timeout(60):
        assert await following == "up\nterm after hooked\n"
    await _until_gone(workspace, "one", within=15)


async def test_a_process_that_ignores_sigterm_ends_with_its_grace(workspace: Workspace) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\n" + SLEEP
    await workspace.start(workspace.pod("one", code))

    async def up() -> bool:
        return "up" in await workspace.log("one")

    await workspace.until(up)
    await workspace.client.delete(PODS, "one", workspace.namespace)
    await _until_gone(workspace, "one", within=15)


async def test_a_deadline_ends_a_pod(workspace: Workspace) -> None:
    await workspace.start(workspace.pod("one", activeDeadlineSeconds=1))
    pod = await workspace.until_phase("one", "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_kubectl_logs_follows_a_container_to_its_end(
    workspace: Workspace, kubectl: Any
) -> None:
    code = "import time\nfor n in range(5): print('line', n); time.sleep(0.1)"
    await workspace.start(workspace.pod("one", code))

    async def started() -> bool:
        return bool(await workspace.log("one"))

    await workspace.until(started)
    followed = await kubectl("logs", "-f", "one")
    assert followed.stdout.splitlines() == [f"line {n}" for n in range(5)]
    assert (await kubectl("logs", "--tail=1", "one")).stdout == "line 4\n"
    refused = await kubectl("logs", "one", "-c", "other", check=False)
    assert "container other is not valid for pod one" in refused.stderr


async def _until_gone(workspace: Workspace, name: str, *, within: float) -> None:
    async def gone() -> bool:
        try:
            await workspace.get(name)
        except ApiError as error:
            return error.not_found
        return False

    await workspace.until(gone, within=within)
