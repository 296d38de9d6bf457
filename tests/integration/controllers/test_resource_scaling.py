"""A deployment that scales by cpu: its HorizontalPodAutoscaler comes, stays as it should, goes."""

from __future__ import annotations

from tests.integration.controllers.conftest import TEAM, Lab
from tests.integration.controllers.test_operator import ALL

from beamlit_operator.kube import HORIZONTAL_POD_AUTOSCALERS, MODEL_DEPLOYMENTS, Json

AUTOSCALERS = HORIZONTAL_POD_AUTOSCALERS
BY_CPU = """
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec:
  model: iris
  serverlessConfig: {metric: cpu, target: 60, maxNumReplicas: 4}
  runtime: {resources: {requests: {cpu: 500m}}}
"""


async def autoscalers(lab: Lab) -> list[Json]:
    return (await lab.client.list(AUTOSCALERS, TEAM)).items


async def test_it_is_made_kept_as_it_should_be_and_removed(lab: Lab) -> None:
    operator = await lab.start_operator()
    await lab.apply(ALL)
    await lab.apply(BY_CPU)
    await lab.until_ready("Idle")

    async def one() -> bool:
        return len(await autoscalers(lab)) == 1

    await lab.until(one, "one HorizontalPodAutoscaler", show=MODEL_DEPLOYMENTS, name="iris")
    written = await lab.settle()
    (made,) = await autoscalers(lab)
    name = made["metadata"]["name"]
    assert (await lab.revision())["metadata"]["name"] == name
    assert made["spec"]["maxReplicas"] == 4
    for key in operator.indexes.all_keys():
        operator.queue.add(key)
    assert await lab.settle() == written, "the same again must write nothing"

    await lab.client.merge_patch(AUTOSCALERS, name, {"spec": {"maxReplicas": 99}}, TEAM)

    async def reverted() -> bool:
        return [a["spec"]["maxReplicas"] for a in await autoscalers(lab)] == [4]

    await lab.until(reverted, "the drift is reverted")
    await lab.client.delete(AUTOSCALERS, name, TEAM)
    await lab.until(one, "what was deleted is back")

    spec = {"spec": {"serverlessConfig": {"metric": "rps"}}}
    await lab.client.merge_patch(MODEL_DEPLOYMENTS, "iris", spec, TEAM)

    async def none() -> bool:
        return await autoscalers(lab) == []

    await lab.until(none, "no HorizontalPodAutoscaler")


async def test_what_keeps_it_from_scaling_is_told_and_taken_back(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.apply(
        BY_CPU + "  podTemplate: {spec: {containers: [{name: sidecar, image: example.com/s}]}}\n"
    )

    async def told() -> bool:
        found = await lab.get(MODEL_DEPLOYMENTS, "iris") or {}
        conditions = (found.get("status") or {}).get("conditions") or ()
        return [c["reason"] for c in conditions if c["type"] == "ScalingBlocked"] == [
            "NoResourceRequest"
        ]

    await lab.until(told, "ScalingBlocked", show=MODEL_DEPLOYMENTS, name="iris")

    async def event() -> bool:
        return "NoResourceRequest" in await lab.events("iris")

    await lab.until(event, "an event that says so")
    (made,) = await autoscalers(lab)
    active = {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"}
    await lab.client.merge_patch(
        AUTOSCALERS,
        made["metadata"]["name"],
        {"status": {"currentReplicas": 1, "desiredReplicas": 1, "conditions": [active]}},
        TEAM,
        subresource="status",
    )

    async def taken_back() -> bool:
        return not await told()

    await lab.until(taken_back, "no ScalingBlocked", show=MODEL_DEPLOYMENTS, name="iris")
