"""What somebody with rights on workloads does to a governed deployment by hand is put right."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from tests.integration.governance.test_enforcement import NODES, environment, where
from tests.integration.governance.traffic import load_on

from beamlit_operator.api import labels
from beamlit_operator.kube import DEPLOYMENTS, PODS, SERVICES, ApiError, Json

FORBIDDEN = {NODES["eu"], NODES["au"]}


async def revision(workspace) -> Json:
    found = await workspace.client.list(DEPLOYMENTS, workspace.name)
    (live,) = found.items
    return live


async def until(workspace, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 90
    while not await condition():
        assert time.monotonic() < deadline, f"{what}{workspace.stack.logs()}"
        await asyncio.sleep(0.1)


async def test_a_governed_deployment_is_put_right_whatever_is_done_to_it(workspace):
    await workspace.apply("Policy", "where", where("us"))
    await workspace.quickstart()
    await workspace.apply("Environment", "production", environment("where"))
    client, space = workspace.client, workspace.name
    async with load_on(workspace) as load:
        await load.until(lambda answer: answer.node == NODES["us"])
        began = time.monotonic()
        before = await revision(workspace)
        name = before["metadata"]["name"]
        service = await client.get(SERVICES, name, space)

        async def same() -> bool:
            try:
                live, around = (
                    await client.get(DEPLOYMENTS, name, space),
                    await client.get(SERVICES, name, space),
                )
            except ApiError as error:
                if error.not_found:
                    return False
                raise
            template = live["spec"]["template"]
            return (
                template == before["spec"]["template"]
                and not live["spec"].get("paused")
                and live["metadata"]["labels"] == before["metadata"]["labels"]
                and live["metadata"].get("ownerReferences") == before["metadata"]["ownerReferences"]
                and around["spec"]["selector"] == service["spec"]["selector"]
                and not around["spec"].get("publishNotReadyAddresses")
                and bool(around["metadata"].get("ownerReferences"))
            )

        elsewhere = {"nodeName": NODES["eu"], "affinity": None}
        owned = labels.MODEL_DEPLOYMENT
        attempts: list[tuple[str, object, Json]] = [
            ("affinity", DEPLOYMENTS, {"spec": {"template": {"spec": {"affinity": None}}}}),
            ("node", DEPLOYMENTS, {"spec": {"template": {"spec": elsewhere}}}),
            ("paused", DEPLOYMENTS, {"spec": {"paused": True}}),
            (
                "owner and labels",
                DEPLOYMENTS,
                {
                    "metadata": {
                        "ownerReferences": None,
                        "labels": {owned: None, labels.MANAGED_BY: None},
                    }
                },
            ),
            ("owner", SERVICES, {"metadata": {"ownerReferences": None}}),
            (
                "selector",
                SERVICES,
                {"spec": {"selector": {"app": "x"}, "publishNotReadyAddresses": True}},
            ),
        ]
        for what, resource, patch in attempts:
            await client.merge_patch(resource, name, patch, space)
            await until(workspace, same, f"{what} was not put right")
        for resource in (SERVICES, DEPLOYMENTS):
            await client.delete(resource, name, space)
            await until(workspace, same, f"a deleted {resource.kind} did not come back")
        await load.until(lambda answer: answer.node == NODES["us"])
        assert not [each for each in load.since(began) if each.node in FORBIDDEN]


async def test_pods_and_services_made_by_hand_never_serve_from_outside(workspace):
    await workspace.apply("Policy", "where", where("us"))
    await workspace.quickstart()
    await workspace.apply("Environment", "production", environment("where"))
    client, space = workspace.client, workspace.name
    async with load_on(workspace) as load:
        await load.until(lambda answer: answer.node == NODES["us"])
        began = time.monotonic()
        (running,) = await workspace.pods()
        live = await revision(workspace)
        marks = live["spec"]["template"]["metadata"]["labels"]

        def pod(name: str, labels_: dict[str, str]) -> Json:
            spec = json.loads(json.dumps(live["spec"]["template"]["spec"]))
            spec.pop("affinity")
            spec["nodeName"] = NODES["eu"]
            return {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": space, "labels": labels_},
                "spec": spec,
            }

        # With all labels: found and evicted. With those of the Deployment alone: not routed to.
        await client.create(PODS, pod("all-labels", marks), space)
        few = {labels.REVISION: marks[labels.REVISION]}
        await client.create(PODS, pod("few-labels", few), space)
        # A Service of one's own that calls itself the revision's, around pods of one's own.
        await client.create(PODS, pod("own-service", {"app": "mine"}), space)
        mine = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "mine", "namespace": space, "labels": marks},
            "spec": {
                "selector": {"app": "mine"},
                "ports": [{"name": "http", "port": 8080, "targetPort": 8080}],
            },
        }
        mine["metadata"]["labels"] = {**marks, labels.MANAGED_BY: "me"}
        await client.create(SERVICES, mine, space)

        async def evicted() -> bool:
            return "all-labels" not in {p["metadata"]["name"] for p in await workspace.pods()}

        async def others_run() -> bool:
            ready = {
                p["metadata"]["name"]
                for p in await workspace.pods()
                for c in p["status"].get("conditions") or ()
                if (c["type"], c["status"]) == ("Ready", "True")
            }
            return {"few-labels", "own-service"} <= ready

        await until(workspace, evicted, "the pod with all labels stays")
        await until(workspace, others_run, "the other pods do not run")
        await load.watch(1)
        assert not [each for each in load.since(began) if each.node in FORBIDDEN]
        assert running["metadata"]["uid"] in {p["metadata"]["uid"] for p in await workspace.pods()}
