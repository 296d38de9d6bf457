"""Runtimes that a cluster adds by ConfigMap: followed live; a spoilt row is told and hurts none."""

from __future__ import annotations

from typing import Any

from tests.integration.controllers.conftest import TEAM, Lab
from tests.integration.controllers.test_operator import ALL

from beamlit_operator.kube import CONFIG_MAPS, DEPLOYMENTS, EVENTS, MODEL_DEPLOYMENTS, Json
from beamlit_operator.workloads.presets import presets

SYSTEM = "beamlit-system"
MINE = "spec: {model: iris, runtime: {type: mine}}"
OWN = ALL.replace("spec: {model: iris}", MINE)


def config_map(name: str = "own-runtimes", **rows: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": {"beamlit.com/runtimes": "true"}},
        "data": rows,
    }


async def put(lab: Lab, body: Json) -> None:
    await lab.client.apply(CONFIG_MAPS, body, field_manager="admin")


async def image(lab: Lab) -> str:
    """Of the newest revision."""
    found = sorted(
        (await lab.client.list(DEPLOYMENTS, TEAM)).items,
        key=lambda each: int(each["metadata"]["resourceVersion"]),
    )
    (serving,) = found[-1]["spec"]["template"]["spec"]["containers"] if found else ({},)
    return str(serving.get("image", ""))


async def told(lab: Lab) -> list[str]:
    found: list[dict[str, Any]] = (await lab.client.list(EVENTS, SYSTEM)).items
    return [each["message"] for each in found if each["reason"] == "RuntimeProblem"]


def unusable(lab: Lab) -> float:
    assert lab.operator is not None
    read = lab.operator.metrics.registry.get_sample_value
    return read("beamlit_runtime_rows_unusable", {"config_map": "own-runtimes"}) or 0.0


async def test_a_row_is_added_spoilt_mended_and_taken_away(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(OWN)
    refused = await lab.until_ready("InvalidSpec")
    assert "use one of llamacpp, mlserver" in str(refused["status"]["conditions"])
    # Added: the deployment that waited for it goes on.
    await put(lab, config_map(mine="image: registry.example/mine:1"))
    await lab.until_ready("Idle")
    assert await image(lab) == "registry.example/mine:1"
    # Spoilt, with a good row beside it: told, and what it said before goes on.
    await put(lab, config_map(mine="image: [", other="image: registry.example/other:1"))

    async def said() -> bool:
        return bool(await told(lab))

    await lab.until(said, "an Event about the row")
    (message,) = await told(lab)
    assert message.startswith("ConfigMap own-runtimes, key mine: its text is not YAML")
    assert "what it said before goes on" in message
    assert unusable(lab) == 1
    await lab.apply(OWN.replace("type: mine", "type: other"))

    async def other() -> bool:
        return await image(lab) == "registry.example/other:1"

    await lab.until(other, "the other row works")
    await lab.apply(OWN)
    await lab.settle()
    assert (await lab.ready(MODEL_DEPLOYMENTS, "iris"))[1] == "Idle"
    # Mended: a new revision of what used it.
    await put(lab, config_map(mine="image: registry.example/mine:2"))

    async def mended() -> bool:
        return await image(lab) == "registry.example/mine:2"

    await lab.until(mended, "the mended row counts")
    assert unusable(lab) == 0
    # Gone: what runs is left alone, and it is said why nothing new can be made.
    await lab.client.delete(CONFIG_MAPS, "own-runtimes", SYSTEM)
    await lab.until_ready("InvalidSpec")
    assert await image(lab) == "registry.example/mine:2"


async def test_a_built_in_row_that_is_changed_makes_a_revision_and_no_other_deployment_moves(
    lab: Lab,
) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    before = await lab.revision()
    await put(lab, config_map(vllm="image: registry.example/vllm:2"))
    operator = lab.operator
    assert operator is not None
    await lab.until(
        lambda: operator.runtimes.table.presets["vllm"].image == "registry.example/vllm:2",
        "the row is read",
    )
    await lab.settle()
    after = await lab.revision()
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    await put(lab, config_map(mlserver="image: registry.example/mlserver:2"))

    async def changed() -> bool:
        return await image(lab) == "registry.example/mlserver:2"

    await lab.until(changed, "the deployment has the image of the changed row")


async def test_a_row_counts_after_a_restart_and_a_spoilt_one_leaves_the_built_in_row(
    lab: Lab,
) -> None:
    await put(lab, config_map(mlserver="image: registry.example/mlserver:2", vllm="port: many"))
    await put(
        lab,
        {
            **config_map("no-label", mlserver="image: x:1"),
            "metadata": {"name": "no-label", "namespace": SYSTEM},
        },
    )
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    assert await image(lab) == "registry.example/mlserver:2"
    assert lab.operator is not None
    assert lab.operator.runtimes.table.presets["vllm"] == presets()["vllm"]
    await lab.stop_operator()
    writes = await lab.revision()
    await lab.start_operator()
    await lab.settle()
    assert (await lab.revision())["metadata"]["generation"] == writes["metadata"]["generation"]
