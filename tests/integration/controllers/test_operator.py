"""The operator as its users see it: manifests in, conditions and children out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.integration.controllers.conftest import TEAM, Lab

from beamlit_operator.kube import (
    DEPLOYMENTS,
    ENVIRONMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    PODS,
    POLICIES,
    SECRETS,
    SERVICES,
)

SECOND = timedelta(seconds=1)
parse = datetime.fromisoformat

MODEL = """
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {origin: {s3: {uri: "s3://models/iris", credentialsSecretRef: {name: s3}}}}
"""
SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: s3}
stringData: {AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: very-secret}
"""
ENVIRONMENT = """
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {policies: [{name: where, mandatory: true}]}
"""
POLICY = """
apiVersion: beamlit.com/v1alpha1
kind: Policy
metadata: {name: where}
spec: {type: location, locations: [{type: country, name: us}]}
"""
DEPLOYMENT = """
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris}
"""
ALL = "---".join((SECRET, POLICY, ENVIRONMENT, MODEL, DEPLOYMENT))


async def test_each_missing_thing_is_named_and_made_up_for_when_it_appears(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(DEPLOYMENT)
    await lab.until_ready("ModelNotFound")
    await lab.apply(MODEL)
    await lab.until_ready("EnvironmentNotFound")
    await lab.apply(ENVIRONMENT)
    await lab.until_ready("PolicyNotFound")
    await lab.until_ready("PoliciesUnresolved", "production", ENVIRONMENTS)
    await lab.apply(POLICY)
    await lab.until_ready("Ready", "where", POLICIES)
    await lab.until_ready("Ready", "production", ENVIRONMENTS)
    await lab.until_ready("SecretNotFound")
    assert (await lab.client.list(DEPLOYMENTS, TEAM)).items == []
    await lab.apply(SECRET)
    deployment = await lab.until_ready("Idle")
    assert deployment["status"]["phase"] == "Idle"
    model = await lab.until_ready("OriginResolved", "iris", MODELS)
    assert model["status"]["origin"]["revision"] == "sha256:aaa"
    assert model["status"]["suggestedRuntime"]["type"] == "mlserver"


async def test_a_missing_bucket_is_told_and_made_up_for(lab: Lab) -> None:
    await lab.start_operator()
    lab.store.buckets.clear()
    await lab.apply(ALL)
    told = await lab.until_ready("OriginNotReady")
    assert "no bucket models" in str(told["status"]["conditions"])
    lab.store.buckets["models"] = "sha256:bbb"
    await lab.until_ready("Idle")


async def test_a_deployment_gets_its_children_and_then_nothing_is_written(lab: Lab) -> None:
    operator = await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    before = await lab.settle()
    children = [
        *(await lab.client.list(DEPLOYMENTS, TEAM)).items,
        *(await lab.client.list(SERVICES, TEAM)).items,
    ]
    assert len(children) == 3
    owner = await lab.get(MODEL_DEPLOYMENTS, "iris")
    assert owner is not None
    for child in children:
        assert child["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    assert (await lab.revision())["spec"]["replicas"] == 0
    assert "finalizers" not in owner["metadata"]
    assert "annotations" not in owner["metadata"]
    for key in operator.indexes.all_keys():
        operator.queue.add(key)
    assert await lab.settle() == before


async def test_a_deployment_costs_few_writes(lab: Lab) -> None:
    operator = await lab.start_operator()
    await lab.apply("---".join((SECRET, POLICY, ENVIRONMENT, MODEL)))
    await lab.until_ready("OriginResolved", "iris", MODELS)
    await lab.until_ready("Ready", "production", ENVIRONMENTS)
    before = await lab.settle()
    await lab.apply(DEPLOYMENT)
    await lab.until_ready("Idle")
    # Three children, a status and an Event; its row on the Model and its count on the Environment
    # are written later and for many deployments at once.
    assert operator.writer.writes - before <= 7
    assert await lab.settle() - before <= 7


async def test_a_restarted_operator_writes_nothing(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.settle()
    await lab.stop_operator()
    again = await lab.start_operator()
    await lab.until(lambda: lab.store.looks > 1, "the origin was looked at again")
    await lab.settle()
    assert again.writer.writes == 0


async def test_what_was_missed_while_the_operator_was_down_is_made_up_for(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.stop_operator()
    await lab.client.delete(POLICIES, "where", TEAM)
    revision = (await lab.revision())["metadata"]["name"]
    await lab.client.delete(SERVICES, revision, TEAM)
    await lab.start_operator()
    await lab.until_ready("PolicyNotFound")
    await lab.apply(POLICY)
    await lab.until_ready("Idle")

    async def back() -> bool:
        return await lab.get(SERVICES, revision) is not None

    await lab.until(back, "the Service is back")


async def test_replicas_belong_to_whoever_scales_and_other_drift_is_reverted(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    name = (await lab.revision())["metadata"]["name"]
    await lab.scale(name, 3)
    await lab.until_ready("Starting")
    await lab.play(name, ready=3)
    active = await lab.until_ready("Serving")
    assert active["status"]["phase"] == "Active"
    foreign = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    await lab.client.merge_patch(DEPLOYMENTS, name, foreign, TEAM)

    async def reverted() -> bool:
        spec = (await lab.revision())["spec"]
        return bool(spec["template"]["spec"]["terminationGracePeriodSeconds"] != 1)

    await lab.until(reverted, "the drift is reverted")
    assert (await lab.revision())["spec"]["replicas"] == 3


async def test_a_deleted_child_is_made_again(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.client.delete(SERVICES, "iris", TEAM)

    async def back() -> bool:
        return await lab.get(SERVICES, "iris") is not None

    await lab.until(back, "the Service is back")


async def test_a_start_that_fails_is_told_and_other_deployments_are_untouched(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.apply(MODEL.replace("name: iris", "name: other"))
    await lab.apply(DEPLOYMENT.replace("iris", "other"))
    await lab.until_ready("Idle")
    before = await lab.until_ready("Idle", "other")
    revision = next(
        d["metadata"]["name"]
        for d in (await lab.client.list(DEPLOYMENTS, TEAM)).items
        if d["metadata"]["name"].startswith("iris")
    )
    await lab.scale(revision, 1)
    await lab.until_ready("Starting")
    live = await lab.client.get(DEPLOYMENTS, revision, TEAM)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "crashing",
            "namespace": TEAM,
            "labels": live["spec"]["template"]["metadata"]["labels"],
        },
        "spec": {"containers": [{"name": "model", "image": "x"}]},
    }
    await lab.client.create(PODS, pod, TEAM)
    crash = {
        "containerStatuses": [
            {
                "name": "model",
                "image": "x",
                "imageID": "",
                "ready": False,
                "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 3, "message": "no such file"}},
            }
        ]
    }
    await lab.client.merge_patch(PODS, "crashing", {"status": crash}, TEAM, subresource="status")
    failed = await lab.until_ready("StartFailed")
    assert "no such file" in str(failed["status"]["conditions"])

    async def told() -> bool:
        # Events follow the status.
        return "StartFailed" in await lab.events("iris")

    await lab.until(told, "an Event says so")
    assert await lab.get(MODEL_DEPLOYMENTS, "other") == before


async def test_a_deleted_deployment_takes_its_children_along(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.client.delete(MODEL_DEPLOYMENTS, "iris", TEAM)

    async def gone() -> bool:
        left = [
            *(await lab.client.list(DEPLOYMENTS, TEAM)).items,
            *(await lab.client.list(SERVICES, TEAM)).items,
        ]
        return not left

    await lab.until(gone, "the children are gone")

    async def counted() -> bool:
        environment = await lab.get(ENVIRONMENTS, "production")
        return environment is not None and environment["status"]["deployments"] == 0

    await lab.until(counted, "the Environment's count is 0")


async def test_the_older_of_two_for_one_endpoint_wins_and_the_other_follows(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    created = (await lab.get(MODEL_DEPLOYMENTS, "iris") or {})["metadata"]["creationTimestamp"]
    # Creation times have whole seconds.
    await lab.until(lambda: datetime.now(UTC) > parse(created) + SECOND, "the next second")
    await lab.apply(DEPLOYMENT.replace("{name: iris}", "{name: second}"))
    await lab.until_ready("Duplicate", "second")
    await lab.client.delete(MODEL_DEPLOYMENTS, "iris", TEAM)
    await lab.until_ready("Idle", "second")


async def test_no_secret_appears_in_anything_that_is_written(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.settle()
    everything = []
    for resource in (MODELS, MODEL_DEPLOYMENTS, DEPLOYMENTS, SERVICES, EVENTS):
        everything += (await lab.client.list(resource, TEAM)).items
    assert "very-secret" not in str(everything)
    assert (await lab.get(SECRETS, "s3")) is not None
