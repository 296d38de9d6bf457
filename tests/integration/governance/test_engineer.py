"""An ML engineer cannot get round a mandatory policy by any call that their role allows.

The admission webhook is taken away for it: what it refuses with a good word, the controller has to
withstand without it. The attacks are by (resource, verb); one that the role allows and that has no
attack here fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import yaml
from tests.integration.governance.conftest import RBAC
from tests.integration.governance.test_enforcement import NODES, environment, where
from tests.integration.governance.traffic import load_on
from tests.integration.system.conftest import API, Workspace, ready

from beamlit_operator.api import labels
from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENVIRONMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    PODS,
    POLICIES,
    SECRETS,
    SERVICES,
    ApiError,
    HttpClient,
    Json,
    Resource,
    connect,
)
from beamlit_operator.kube import (
    NODES as ALL_NODES,
)

HOME = NODES["us"]
ROLE = "beamlit-ml-engineer"
ANYWHERE = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

TEMPLATES: dict[str, Json] = {
    "node selector": {"spec": {"nodeSelector": {"kubernetes.io/hostname": NODES["eu"]}}},
    "node name": {"spec": {"nodeName": NODES["eu"]}},
    "no affinity": {"spec": {"affinity": {"nodeAffinity": None}}},
    "own affinity": {"spec": {"affinity": {"nodeAffinity": {REQUIRED: ANYWHERE}}}},
    "replaced affinity": {"spec": {"affinity": {"$patch": "replace", "nodeAffinity": {}}}},
    "empty terms": {"spec": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}}},
    "by field": {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    REQUIRED: {
                        "nodeSelectorTerms": [
                            {
                                "matchFields": [
                                    {
                                        "key": "metadata.name",
                                        "operator": "In",
                                        "values": [NODES["eu"]],
                                    }
                                ]
                            }
                        ]
                    }
                }
            }
        }
    },
    "tolerations": {"spec": {"tolerations": [{"operator": "Exists"}]}},
    "host network": {"spec": {"hostNetwork": True}},
    "another scheduler": {"spec": {"schedulerName": "mine"}},
    "runtime class": {"spec": {"runtimeClassName": "mine"}},
    "priority": {"spec": {"priorityClassName": "system-node-critical"}},
    "labels": {
        "metadata": {
            "labels": {
                labels.MODEL_DEPLOYMENT: "other",
                labels.REVISION: "x",
                labels.MANAGED_BY: "me",
            }
        }
    },
    "no labels": {"metadata": {"labels": None, "finalizers": ["me.example/stay"], "name": "me"}},
    "the node itself": {
        "spec": {"volumes": [{"name": "host", "hostPath": {"path": "/var/lib/kubelet"}}]}
    },
}

SPECS: dict[str, Json] = {
    **{f"template: {name}": {"podTemplate": body} for name, body in TEMPLATES.items()},
    "own policy": {"policies": [{"name": "europe"}]},
    "replaced policy": {"policies": [{"name": "europe", "replaces": "where"}]},
    "without policies": {"withoutPolicies": ["where"]},
    "a missing policy": {"policies": [{"name": "nowhere"}]},
    "flavors": {"flavors": [{"type": "cpu", "name": "arm"}]},
    "another environment": {"environment": "mine"},
    "a workload elsewhere": {"modelSourceRef": {"name": "elsewhere"}},
    "a service elsewhere": {"serviceRef": {"name": "elsewhere", "targetPort": 8080}},
    "a remote backend": {
        "offloadingConfig": {
            "remoteBackend": {"host": "eu.example"},
            "behavior": {"percentage": 100},
        }
    },
}


@dataclass
class Attack:
    """An engineer's client, and the workspace as its admin sees it."""

    engineer: HttpClient
    workspace: Workspace
    spec: Json
    tried: list[str] = field(default_factory=list)

    async def attempt(self, what: str, call: Awaitable[object]) -> bool:
        """Whether the API server took it. What it may not do is refuse for want of a right."""
        self.tried.append(what)
        try:
            await call
        except ApiError as error:
            if error.status not in (400, 409, 422):
                raise
            return False
        return True

    async def patched(self, what: str, spec: Json) -> None:
        """Lays a patch over the spec, lets the operator act, and takes it back."""
        space = self.workspace.name
        body = {"spec": spec}
        if not await self.attempt(
            what, self.engineer.merge_patch(MODEL_DEPLOYMENTS, "tiny", body, space)
        ):
            return
        await self.observed()
        undo = {"spec": dict.fromkeys(spec), "metadata": {}}
        await self.engineer.merge_patch(MODEL_DEPLOYMENTS, "tiny", undo, space)
        await self.observed()

    async def observed(self) -> None:
        await self.workspace.until(
            lambda md: md["status"].get("observedGeneration") == md["metadata"]["generation"]
        )

    def deployment(self, name: str, **more: object) -> Json:
        metadata = {"name": name, "namespace": self.workspace.name}
        spec = {**self.spec, **more}
        return {"apiVersion": API, "kind": "ModelDeployment", "metadata": metadata, "spec": spec}


async def _create(attack: Attack) -> None:
    for i, (what, spec) in enumerate(SPECS.items()):
        body = attack.deployment(f"second-{i}", **{"environment": "second", **spec})
        await attack.attempt(
            what, attack.engineer.create(MODEL_DEPLOYMENTS, body, attack.workspace.name)
        )
        with contextlib.suppress(ApiError):
            await attack.engineer.delete(MODEL_DEPLOYMENTS, f"second-{i}", attack.workspace.name)


async def _patch(attack: Attack) -> None:
    for what, spec in SPECS.items():
        await attack.patched(what, spec)
    await attack.engineer.merge_patch(
        MODEL_DEPLOYMENTS,
        "tiny",
        {
            "metadata": {
                "labels": {labels.ENVIRONMENT: "mine"},
                "annotations": {"beamlit.com/allowed-locations": "anything"},
                "ownerReferences": [],
            },
            "status": {"effectivePolicy": {"location": {"allowed": ["continent:eu"]}}},
        },
        attack.workspace.name,
    )
    await attack.observed()


async def _update(attack: Attack) -> None:
    live = await attack.engineer.get(MODEL_DEPLOYMENTS, "tiny", attack.workspace.name)
    live["spec"]["podTemplate"] = TEMPLATES["own affinity"]
    live["status"]["revisions"] = []
    live["metadata"]["generation"] = 99
    await attack.attempt("update", attack.engineer.update(MODEL_DEPLOYMENTS, live))
    await attack.observed()
    await attack.patched("after the update", {"podTemplate": None})


async def _delete(attack: Attack) -> None:
    """Kept by a finalizer; and with what runs left behind."""
    space, client = attack.workspace.name, attack.engineer
    stay = {"metadata": {"finalizers": ["me.example/stay"]}}
    await client.merge_patch(MODEL_DEPLOYMENTS, "tiny", stay, space)
    await client.delete(MODEL_DEPLOYMENTS, "tiny", space)
    assert await attack.workspace.pods(), "a finalizer keeps it and what runs for it"
    await attack.workspace.apply("Policy", "where", where("au"))

    async def none_outside() -> bool:
        return all(p["spec"].get("nodeName") == NODES["au"] for p in await attack.workspace.pods())

    await until(none_outside, "a deleted deployment keeps pods outside a tightened policy")
    await attack.workspace.apply("Policy", "where", where("us"))
    await client.merge_patch(MODEL_DEPLOYMENTS, "tiny", {"metadata": {"finalizers": None}}, space)
    await client.create(MODEL_DEPLOYMENTS, attack.deployment("orphaned"), space)
    await attack.workspace.until(
        lambda md: (md.get("status") or {}).get("readyReplicas"), name="orphaned"
    )
    await client.delete(MODEL_DEPLOYMENTS, "orphaned", space, propagation="Orphan")

    async def nothing_left() -> bool:
        return not await attack.workspace.pods()

    await until(nothing_left, "pods without a deployment go on")


async def _scale(attack: Attack) -> None:
    await attack.attempt(
        "scale",
        attack.engineer.merge_patch(
            MODEL_DEPLOYMENTS,
            "tiny",
            {"spec": {"replicas": 2}},
            attack.workspace.name,
            subresource="scale",
        ),
    )
    await attack.workspace.until(lambda md: md["status"].get("readyReplicas") == 2)


async def _put_scale(attack: Attack) -> None:
    at = {"subresource": "scale"}
    scale = await attack.engineer.get(MODEL_DEPLOYMENTS, "tiny", attack.workspace.name, **at)
    scale["spec"]["replicas"] = 1
    await attack.attempt("scale", attack.engineer.update(MODEL_DEPLOYMENTS, scale, **at))


async def _invoke(attack: Attack) -> None:
    """Nothing that a caller says leads to a pod elsewhere."""
    space = attack.workspace
    headers = {
        **space.stack.caller_headers,
        "x-beamlit-way": "beamlit_pods",
        "x-beamlit-cluster": f"{space.name}/elsewhere/elsewhere-1",
    }
    url = f"{space.stack.gateway}/{space.name}/models/tiny/predict"
    async with space.http.post(url, data=b"{}", headers=headers) as response:
        attack.tried.append("invoke")
        assert (await response.json()).get("node") in (None, HOME)


async def _models(attack: Attack) -> None:
    """A Model says where files are and what serves them, never where."""
    space, client = attack.workspace.name, attack.engineer
    tricks: Json = {"runtime": {"type": "mlserver", "envs": [{"name": "NODE", "value": HOME}]}}
    await attack.attempt("model", client.merge_patch(MODELS, "tiny", {"spec": tricks}, space))
    await client.merge_patch(MODELS, "tiny", {"spec": {"runtime": None}}, space)
    live = await client.get(MODELS, "tiny", space)
    await attack.attempt("model", client.update(MODELS, live))
    other = {"apiVersion": API, "kind": "Model", "metadata": {"name": "other"}, "spec": {}}
    await attack.attempt("model", client.create(MODELS, other, space))
    await attack.attempt("model", client.delete(MODELS, "other", space))


async def _collections(attack: Attack) -> None:
    for resource in (MODELS, MODEL_DEPLOYMENTS):
        response = await attack.engineer.request("DELETE", resource.path(attack.workspace.name))
        await response.read()


Attacks = Callable[[Attack], Awaitable[None]]

BY_RIGHT: dict[tuple[str, str], Attacks] = {
    ("modeldeployments", "patch"): _patch,
    ("modeldeployments", "update"): _update,
    ("modeldeployments", "create"): _create,
    ("modeldeployments/scale", "patch"): _scale,
    ("modeldeployments/scale", "update"): _put_scale,
    ("modeldeployments/invoke", "create"): _invoke,
    ("models", "patch"): _models,
    ("models", "update"): _models,
    ("models", "create"): _models,
    ("models", "delete"): _models,
    ("modeldeployments", "delete"): _delete,
    ("modeldeployments", "deletecollection"): _collections,
    ("models", "deletecollection"): _collections,
}
READING = {"get", "list", "watch"}


def rights() -> set[tuple[str, str]]:
    """What the role allows beyond reading."""
    roles = yaml.safe_load_all((RBAC / "people.yaml").read_text())
    (role,) = (each for each in roles if each["metadata"]["name"] == ROLE)
    return {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in set(rule["verbs"]) - READING
    }


def test_every_right_of_the_role_has_an_attack() -> None:
    assert rights() == set(BY_RIGHT)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 90
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def pods_outside(workspace: Workspace) -> AsyncIterator[set[tuple[str, str]]]:
    """The pods that were ready on a node other than HOME, as a watch has seen them."""
    seen: set[tuple[str, str]] = set()
    listing = await workspace.client.list(PODS, workspace.name)

    async def follow() -> None:
        async for event in workspace.client.watch(
            PODS, workspace.name, resource_version=listing.resource_version
        ):
            node = event.object["spec"].get("nodeName")
            states = (event.object.get("status") or {}).get("conditions") or ()
            is_ready = any((c["type"], c["status"]) == ("Ready", "True") for c in states)
            if node not in (None, HOME) and is_ready:
                seen.add((event.object["metadata"]["name"], node))

    following = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
async def engineer(workspace, stack) -> AsyncIterator[HttpClient]:
    space = workspace.name
    account = f"{space}:engineer"
    stack.kubectl("create", "serviceaccount", "engineer", "-n", space)
    flags = (f"--clusterrole={ROLE}", f"--serviceaccount={account}", "-n", space)
    stack.kubectl("create", "rolebinding", "engineer", *flags)
    async with await connect(stack.kubeconfig_of("engineer", space)) as client:
        yield client


@pytest.fixture
def without_webhook(stack):
    name = ("validatingwebhookconfiguration", "beamlit-admission")
    live = json.loads(stack.kubectl("get", *name, "-o", "json"))
    stack.kubectl("delete", *name)
    yield
    # As it was, so that the operator need not find it again before others rely on it.
    live["metadata"] = {"name": live["metadata"]["name"], "labels": live["metadata"]["labels"]}
    stack.kubectl("create", "-f", "-", stdin=json.dumps(live))


@pytest.mark.parametrize("resource", [ENVIRONMENTS, POLICIES], ids=str)
async def test_an_engineer_reads_what_binds_them_and_writes_none_of_it(
    workspace, engineer, resource: Resource
):
    space = workspace.name
    await workspace.apply("Policy", "where", where("us"))
    await workspace.apply("Environment", "where", environment("where"))
    await engineer.list(resource, space)
    body = {
        "apiVersion": API,
        "kind": resource.kind,
        "metadata": {"name": "mine", "namespace": space},
        "spec": where("eu") if resource is POLICIES else environment(),
    }
    for call in (
        engineer.create(resource, body, space),
        engineer.merge_patch(resource, "where", {"spec": {}}, space),
        engineer.apply(resource, body, field_manager="me"),
        engineer.update(resource, {**body, "metadata": {"name": "where", "namespace": space}}),
        engineer.delete(resource, "where", space),
    ):
        await forbidden(call)


async def forbidden(call: Awaitable[object]) -> None:
    with pytest.raises(ApiError) as refusal:
        await call
    assert refusal.value.status == 403


async def test_an_engineer_has_no_right_to_statuses_workloads_or_nodes(workspace, engineer):
    space = workspace.name
    for resource in (MODEL_DEPLOYMENTS, MODELS, POLICIES, ENVIRONMENTS):
        for subresource in ("status", "finalizers"):
            call = engineer.merge_patch(resource, "x", {}, space, subresource=subresource)
            await forbidden(call)
    for resource in (
        *(PODS, DEPLOYMENTS, SERVICES, SECRETS, CONFIG_MAPS, EVENTS, ENDPOINT_SLICES),
    ):
        await forbidden(engineer.list(resource, space))
        await forbidden(engineer.create(resource, {"metadata": {"name": "x"}}, space))
    await forbidden(engineer.merge_patch(ALL_NODES, HOME, {"metadata": {"labels": {}}}))
    elsewhere = Attack(engineer, workspace, {"model": "x"}).deployment("x")
    elsewhere["metadata"]["namespace"] = "default"
    await forbidden(engineer.create(MODEL_DEPLOYMENTS, elsewhere, "default"))


async def test_no_right_of_an_engineer_gets_round_a_mandatory_policy(
    workspace, engineer, without_webhook
):
    await workspace.apply("Policy", "where", where("us"))
    await workspace.apply("Policy", "europe", where("eu"))
    await workspace.apply("Environment", "second", environment("where"))
    await workspace.apply("Environment", "production", environment("where"))
    await workspace.secret()
    await workspace.model()
    await workspace.deployment(serverlessConfig={"minNumReplicas": 1})
    await workspace.until_ready("Serving")
    live = await workspace.get()
    attack = Attack(engineer, workspace, live["spec"])
    done: set[Attacks] = set()
    async with load_on(workspace) as load, pods_outside(workspace) as outside:
        for attacks in BY_RIGHT.values():
            if attacks is _delete:
                # The deletion moves the policy itself.
                assert outside == set()
            if attacks not in done:
                done.add(attacks)
                await attacks(attack)
        answered = {each.node for each in load.answers} - {""}
    assert answered == {HOME}
    assert outside <= {each for each in outside if each[1] == NODES["au"]}
    assert len(attack.tried) > 2 * len(SPECS)


async def test_what_is_refused_in_a_template_says_which_field_and_why(
    workspace, engineer, without_webhook
):
    await workspace.quickstart(podTemplate=TEMPLATES["node name"])
    told = ready(await workspace.until_ready("UnsupportedField"))
    assert "podTemplate.spec.nodeName" in told["message"]
    assert "policies" in told["message"]
