"""The way out of the cluster: told to the pods that fetch, and no part of a revision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
from tests.unit.workloads.test_native import SETTINGS, deployment, made, running

from beamlit_operator.workloads.outgoing import Outgoing

PROXY = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".svc"}
TOLD = replace(SETTINGS, outgoing=Outgoing(variables=PROXY, authorities="our-ca", key="all.pem"))


def fetcher(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in pod["initContainers"] if each["name"] == "fetch"]
    return found


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in fetcher(pod)["env"]}


def pod_of(result: Any) -> dict[str, Any]:
    return result.deployment["spec"]["template"]["spec"]


def test_the_fetcher_is_told_of_proxy_and_authorities_and_the_server_is_not() -> None:
    result = made(settings=TOLD)
    pod = pod_of(result)
    told = variables(pod)
    assert told.items() >= PROXY.items()
    mounted = {each["name"]: each["mountPath"] for each in fetcher(pod)["volumeMounts"]}
    assert told["BEAMLIT_CA_FILE"] == f"{mounted['beamlit-authorities']}/all.pem"
    (volume,) = [each for each in pod["volumes"] if each["name"] == "beamlit-authorities"]
    assert volume["configMap"] == {"name": "our-ca", "optional": True, "defaultMode": 0o644}
    (server,) = pod["containers"]
    assert not {each["name"] for each in server["env"]} & {*PROXY, "BEAMLIT_CA_FILE"}
    kubernetes_validate.validate({**result.deployment}, "1.37", strict=True)


def test_another_proxy_makes_no_new_revision_and_restarts_nobody() -> None:
    before = made()
    assert made(settings=TOLD).revision == before.revision
    assert made(settings=TOLD, live=running(before)).deployment == before.deployment
    told = made(settings=TOLD)
    assert made(live=running(told)).deployment == told.deployment
    # Nobody runs: the next pod is told.
    assert made(settings=TOLD, live=running(before, replicas=0)).deployment == told.deployment


def test_what_a_user_says_of_the_same_variable_counts() -> None:
    own = [{"name": "HTTPS_PROXY", "value": "http://mine:1"}]
    template = {"spec": {"initContainers": [{"name": "fetch", "env": own}]}}
    pod = pod_of(made(deployment(podTemplate=template), settings=TOLD))
    assert variables(pod)["HTTPS_PROXY"] == "http://mine:1"
    names = [each["name"] for each in fetcher(pod)["env"]]
    assert len(names) == len(set(names))
