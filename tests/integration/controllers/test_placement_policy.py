"""Whoever may write pods and Deployments cannot place a governed one elsewhere."""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import dataclass

import pytest
from tests.integration.controllers.conftest import TEAM, Lab
from tests.integration.controllers.test_admission import POLICIES_AND_MODEL, deployment

from beamlit_operator.controllers.admission import podpolicy
from beamlit_operator.controllers.admission.guard import NAME as PLACEMENTS
from beamlit_operator.kube import (
    CONFIG_MAPS,
    ENVIRONMENTS,
    MODEL_DEPLOYMENTS,
    POLICIES,
    ApiError,
    Json,
    Resource,
)

GROUP = "admissionregistration.k8s.io"
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
OPERATOR = "devcluster:admin"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass
class Engineer:
    """Somebody with every right on pods and Deployments, but not the operator."""

    lab: Lab
    token: str

    async def make(self, item: Json) -> tuple[int, str]:
        return await self._run("create", "-f", "-", stdin=json.dumps(item))

    async def kubectl(self, *arguments: str) -> tuple[int, str]:
        return await self._run(*arguments)

    async def _run(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "--kubeconfig", str(self.lab.kubeconfig), "--token", self.token),
            *("-n", TEAM, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def pod(self, name: str) -> Json:
        """A pod as the Deployment's ReplicaSet would make it."""
        template = (await self.lab.revision())["spec"]["template"]
        metadata = {**copy.deepcopy(template["metadata"]), "name": name}
        spec = copy.deepcopy(template["spec"])
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def terms(pod: Json) -> list[Json]:
    found: list[Json] = pod["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return found


async def entry(lab: Lab, name: str = "iris") -> str:
    try:
        found = await lab.client.get(CONFIG_MAPS, PLACEMENTS, "beamlit-system")
    except ApiError:
        return ""
    return str(found["data"].get(f"{TEAM}.{name}", ""))


@pytest.fixture
async def engineer(lab: Lab) -> Engineer:
    await lab.start_operator(placement_guard=True)
    await lab.apply(POLICIES_AND_MODEL)
    await lab.apply(deployment("iris"))
    await lab.until_ready("Idle")

    async def written() -> bool:
        return (await entry(lab)).startswith("p-")

    await lab.until(written, "the placements are written")
    for plural, kind, body in (
        ("policies", "ValidatingAdmissionPolicy", podpolicy.policy(OPERATOR)),
        ("policybindings", "ValidatingAdmissionPolicyBinding", podpolicy.binding("beamlit-system")),
    ):
        resource = Resource(GROUP, "v1", f"validatingadmission{plural}", kind, namespaced=False)
        await lab.client.apply(resource, body, field_manager="chart")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "engineer"}}
    await lab.client.create(ACCOUNTS, account, TEAM)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await lab.client.create(ACCOUNTS, request, TEAM, name="engineer", subresource="token")
    return Engineer(lab, answer["status"]["token"])


def unplaced(pod: Json) -> None:
    del pod["spec"]["affinity"]


def elsewhere(pod: Json) -> None:
    for term in terms(pod):
        for each in term["matchExpressions"]:
            if each["operator"] == "In":
                each["values"] = ["eu-west-1"]


def one_more_way(pod: Json) -> None:
    region = "topology.kubernetes.io/region"
    more = {"key": region, "operator": "In", "values": ["eu-west-1"]}
    terms(pod).append({"matchExpressions": [more]})


def anywhere(pod: Json) -> None:
    terms(pod).append(
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["eu"]}]}
    )


def one_more_region(pod: Json) -> None:
    terms(pod)[0]["matchExpressions"][0]["values"].append("eu-west-1")


def without_its_zones(pod: Json) -> None:
    """Of a region that reaches abroad, some zones are kept out."""
    zone = "topology.kubernetes.io/zone"
    before = copy.deepcopy(terms(pod))
    for term in terms(pod):
        kept = [each for each in term["matchExpressions"] if each["key"] != zone]
        term["matchExpressions"] = kept
    assert terms(pod) != before


def only_preferred(pod: Json) -> None:
    node = pod["spec"]["affinity"]["nodeAffinity"]
    preferred = [{"weight": 1, "preference": term} for term in terms(pod)]
    node["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    del node[REQUIRED]


def on_a_node(pod: Json) -> None:
    pod["spec"]["nodeName"] = "eu"


WAYS_ROUND = (
    unplaced,
    elsewhere,
    one_more_way,
    anywhere,
    one_more_region,
    without_its_zones,
    only_preferred,
    on_a_node,
)


async def test_no_pod_goes_round_the_policy(engineer: Engineer) -> None:
    status, said = await engineer.make(await engineer.pod("right"))
    assert status == 0, said
    for change in WAYS_ROUND:
        wrong = await engineer.pod("wrong")
        change(wrong)
        status, said = await engineer.make(wrong)
        assert status == 1, change
        assert "ValidatingAdmissionPolicy 'beamlit-placement'" in said
        assert "ModelDeployment" in said


async def test_what_narrows_is_allowed_and_others_pods_are_nobodys_business(
    engineer: Engineer,
) -> None:
    narrower = await engineer.pod("narrower")
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    for term in terms(narrower):
        term["matchExpressions"].append(zone)
    del terms(narrower)[1:]
    status, said = await engineer.make(narrower)
    assert status == 0, said
    stranger = await engineer.pod("stranger")
    stranger["metadata"]["labels"] = {"app": "other"}
    unplaced(stranger)
    status, said = await engineer.make(stranger)
    assert status == 0, said
    # ... until it pretends to be one of ours.
    status, said = await engineer.kubectl(
        "label", "pod", "stranger", "beamlit.com/model-deployment=iris"
    )
    assert status == 1, said
    status, said = await engineer.kubectl("label", "pod", "narrower", "x=y")
    assert status == 0, said
    status, said = await engineer.kubectl("delete", "pod", "narrower", "--grace-period=0")
    assert status == 0, said


async def test_a_deployments_template_cannot_be_loosened_but_it_can_be_scaled(
    engineer: Engineer,
) -> None:
    name = (await engineer.lab.revision())["metadata"]["name"]
    patch = json.dumps({"spec": {"template": {"spec": {"affinity": None}}}})
    status, said = await engineer.kubectl("patch", "deployment", name, "--type=merge", "-p", patch)
    assert status == 1
    assert "beamlit-placement" in said
    status, said = await engineer.kubectl("scale", "deployment", name, "--replicas=1")
    assert status == 0, said


async def test_a_tightened_policy_and_a_restart_are_followed(engineer: Engineer) -> None:
    lab = engineer.lab
    before, old = await entry(lab), await engineer.pod("old")
    japan = {"spec": {"locations": [{"type": "country", "name": "jp"}]}}
    await lab.client.merge_patch(POLICIES, "us-only", japan, TEAM)

    async def other() -> bool:
        return await entry(lab) not in (before, "", "-")

    await lab.until(other, "the entry follows")
    status, said = await engineer.make(old)
    assert status == 1, said
    status, said = await engineer.make(await engineer.pod("new"))
    assert status == 0, said
    # A policy that is gone: nothing new is placed, also after a restart.
    await lab.stop_operator()
    await lab.client.delete(POLICIES, "us-only", TEAM)
    await lab.start_operator(placement_guard=True)
    await lab.until_ready("PolicyNotFound")
    await lab.client.delete(ENVIRONMENTS, "production", TEAM)
    await lab.client.delete(MODEL_DEPLOYMENTS, "iris", TEAM)

    async def gone() -> bool:
        return await entry(lab) == ""

    await lab.until(gone, "the entry of a deleted deployment goes")
