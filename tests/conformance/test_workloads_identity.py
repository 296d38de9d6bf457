"""What a program in a pod does with the identity it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.kube import PODS

from .conftest import Eventually
from .workloads import Workspace

ASK = """
import json, os, ssl, urllib.request
home = "/var/run/secrets/kubernetes.io/serviceaccount"
token, namespace = (open(home + "/" + name).read() for name in ("token", "namespace"))
url = "https://%s:%s/apis/authentication.k8s.io/v1/selfsubjectreviews" % (
    os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
)
request = urllib.request.Request(url, b"{}", method="POST", headers={
    "Authorization": "Bearer " + token, "Content-Type": "application/json"
})
context = ssl.create_default_context(cafile=home + "/ca.crt")
answer = json.load(urllib.request.urlopen(request, context=context))
info = answer["status"]["userInfo"]
pod = info["extra"]["authentication.kubernetes.io/pod-name"][0]
open("/dev/termination-log", "w").write(" ".join((info["username"], namespace, pod)))
"""


@pytest.fixture(scope="module")
def kubeconfig(cluster_kubeconfig: Path) -> Path:
    return cluster_kubeconfig


async def test_a_program_in_a_pod_speaks_to_the_api_server_as_its_account(
    workspace: Workspace, eventually: Eventually
) -> None:
    pod = workspace.pod("asker", ASK)
    await workspace.client.create(PODS, pod, workspace.namespace)

    async def ended() -> Any:
        found = await workspace.client.get(PODS, "asker", workspace.namespace)
        (status,) = found["status"].get("containerStatuses") or [{}]
        return (status.get("state") or {}).get("terminated")

    state = await eventually(ended)
    user = f"system:serviceaccount:{workspace.namespace}:default"
    assert state["exitCode"] == 0, state
    assert state["message"] == f"{user} {workspace.namespace} asker"
