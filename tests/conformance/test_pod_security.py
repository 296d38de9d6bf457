"""Pod Security Standards: what a namespace's level refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.kube import DEPLOYMENTS, NAMESPACES, PODS, ApiError, HttpClient, Json

from .conftest import Eventually
from .identities import ACCOUNTS

RESTRICTED: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
async def namespace(client: HttpClient, namespace: str, eventually: Eventually) -> str:
    """One in which pods can be created."""

    async def has_account() -> bool:
        accounts = await client.list(ACCOUNTS, namespace)
        return any(item["metadata"]["name"] == "default" for item in accounts.items)

    await eventually(has_account)
    return namespace


async def enforce(client: HttpClient, namespace: str, level: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    await client.merge_patch(NAMESPACES, namespace, {"metadata": {"labels": labels}})


def pod(security: Json | None = None, **spec: Any) -> Json:
    container: Json = {"name": "main", "image": "example.com/none:1"}
    if security is not None:
        container["securityContext"] = security
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "pod-"},
        "spec": {"containers": [container], **spec},
    }


async def test_a_restricted_namespace_says_everything_that_a_plain_pod_lacks(
    client: HttpClient, namespace: str
) -> None:
    await enforce(client, namespace, "restricted")
    with pytest.raises(ApiError) as refused:
        await client.create(PODS, pod(), namespace)
    assert refused.value.status == 403
    assert (
        'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container'
        ' "main" must set securityContext.allowPrivilegeEscalation=false), unrestricted'
        ' capabilities (container "main" must set securityContext.capabilities.drop=["ALL"]),'
        ' runAsNonRoot != true (pod or container "main" must set'
        ' securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set'
        ' securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    ) in refused.value.message
    await client.create(PODS, pod(RESTRICTED), namespace)
    # An image as a volume (KEP-4639) is as good as one as a container.
    image = {"name": "v", "image": {"reference": "example.com/model:1"}}
    await client.create(PODS, pod(RESTRICTED, volumes=[image]), namespace)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (pod(RESTRICTED, hostNetwork=True), "host namespaces (hostNetwork=true)"),
        (
            pod(RESTRICTED, volumes=[{"name": "v", "hostPath": {"path": "/etc"}}]),
            'restricted volume types (volume "v" uses restricted volume type "hostPath")',
        ),
        (
            pod({**RESTRICTED, "privileged": False, "runAsUser": 0}),
            'runAsUser=0 (container "main" must not set runAsUser=0)',
        ),
        (
            pod({**RESTRICTED, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
            'container "main" must not include "NET_ADMIN" in securityContext.capabilities.add',
        ),
        (
            pod(RESTRICTED, container={"ports": [{"containerPort": 80, "hostPort": 80}]}),
            'hostPort (container "main" uses hostPort 80)',
        ),
    ],
    ids=["host namespaces", "volumes", "root", "capabilities", "host ports"],
)
async def test_each_control_is_refused_in_its_words(
    client: HttpClient, namespace: str, wrong: Json, sentence: str
) -> None:
    await enforce(client, namespace, "restricted")
    with pytest.raises(ApiError) as refused:
        await client.create(PODS, wrong, namespace)
    assert refused.value.status == 403
    assert sentence in refused.value.message


async def test_baseline_refuses_privileged_pods_and_lets_plain_ones_through(
    client: HttpClient, namespace: str
) -> None:
    await enforce(client, namespace, "baseline")
    await client.create(PODS, pod(), namespace)
    with pytest.raises(ApiError, match=r"privileged \(container .*privileged=true"):
        await client.create(PODS, pod({"privileged": True}), namespace)
    with pytest.raises(ApiError, match=r'hostPath volumes \(volume "v"\)'):
        await client.create(
            PODS, pod(volumes=[{"name": "v", "hostPath": {"path": "/etc"}}]), namespace
        )
    await enforce(client, namespace, "privileged")
    await client.create(PODS, pod({"privileged": True}), namespace)


async def test_who_makes_a_workload_of_such_pods_is_warned(
    client: HttpClient, namespace: str
) -> None:
    labels = {"pod-security.kubernetes.io/warn": "restricted"}
    await client.merge_patch(NAMESPACES, namespace, {"metadata": {"labels": labels}})
    selector = {"app": "one"}
    template = {"metadata": {"labels": selector}, "spec": pod()["spec"]}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": {"replicas": 0, "selector": {"matchLabels": selector}, "template": template},
    }
    told: list[str] = []
    client.on_warning = told.append
    await client.create(DEPLOYMENTS, workload, namespace)
    (warning,) = told
    assert warning.startswith('would violate PodSecurity "restricted:latest": allowPrivilege')
