"""An operator written with kopf: handlers, finalizers, status and children on this API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from beamlit_operator.kube import CONFIG_MAPS, EVENTS, ApiError, HttpClient, Resource

from .objects import widget

OPERATOR = """
import kopf
import kubernetes.client

@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "conformance.beamlit.com/kopf"

@kopf.on.create("conformance.beamlit.com", "v1", "widgets")
def created(spec, name, namespace, body, **_):
    kopf.info(body, reason="Painted", message="it is red now")
    child = {"metadata": {"name": name}, "data": {"size": str(spec["size"])}}
    kopf.adopt(child)
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, child)
    return {"made": name}

@kopf.on.update("conformance.beamlit.com", "v1", "widgets", field="spec.size")
def resized(old, new, name, namespace, patch, **_):
    body = {"data": {"size": str(new)}}
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(name, namespace, body)
    patch.status["message"] = f"{old} to {new}"

@kopf.on.delete("conformance.beamlit.com", "v1", "widgets")
def deleted(name, namespace, **_):
    body = {"metadata": {"name": name + "-gone"}}
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, body)

@kopf.on.login()
def login(**kwargs):
    return kopf.login_via_client(**kwargs)
"""


async def test_a_kopf_operator_creates_updates_and_finalizes(
    client: HttpClient,
    namespace: str,
    widgets: Resource,
    kubeconfig: Path,
    tmp_path: Path,
    eventually: Any,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(OPERATOR)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "kopf", "run", "--namespace", namespace, str(program)]
    with (
        log.open("w") as out,
        subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        ) as process,
    ):
        try:
            await client.create(widgets, widget("one", namespace, size=3))
            child = await eventually(lambda: _data(client, "one", namespace))
            assert child == {"size": "3"}
            made = await client.get(CONFIG_MAPS, "one", namespace)
            assert made["metadata"]["ownerReferences"][0]["kind"] == "Widget"

            async def handled() -> Any:
                found = await client.get(widgets, "one", namespace)
                key = "kopf.zalando.org/last-handled-configuration"
                return found if key in found["metadata"].get("annotations", {}) else None

            found = await eventually(handled)
            assert found["metadata"]["finalizers"] == ["conformance.beamlit.com/kopf"]

            patch = {"spec": {"size": 4}}
            await client.merge_patch(widgets, "one", patch, namespace)

            async def resized() -> bool:
                status = (await client.get(widgets, "one", namespace)).get("status") or {}
                return bool(status.get("message") == "3 to 4")

            await eventually(resized)
            assert await _data(client, "one", namespace) == {"size": "4"}

            await client.delete(widgets, "one", namespace)

            async def gone() -> bool:
                try:
                    await client.get(widgets, "one", namespace)
                except ApiError as error:
                    return error.not_found
                return False

            await eventually(gone)
            assert await _data(client, "one-gone", namespace) == {}
            told = (await client.list(EVENTS, namespace)).items
            assert [e["message"] for e in told if e["reason"] == "Painted"] == ["it is red now"]
        except BaseException:
            print(log.read_text()[-5000:])
            raise
        finally:
            process.terminate()
            process.wait(60)


async def _data(client: HttpClient, name: str, namespace: str) -> Any:
    """The data of a ConfigMap, None when there is none."""
    try:
        return (await client.get(CONFIG_MAPS, name, namespace)).get("data") or {}
    except ApiError as error:
        if error.not_found:
            return None
        raise
