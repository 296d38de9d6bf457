"""No pod that the operator makes has more than it needs: of rights, of secrets, of the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from beamlit_operator.workloads.access import Access
from beamlit_operator.workloads.cache import Cache
from beamlit_operator.workloads.errands import prefetching_pod, tidying_pod
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.outgoing import Outgoing

from .test_cache import made, pod
from .test_native import FILES

WEB = Access(
    authorities=("our-ca", "ca.crt"), service_account="reader", audience="sts.amazonaws.com"
)
DIGEST = "sha256:" + "ab" * 32
CLAIM = ModelFiles("pvc://weights", DIGEST, claim="weights")
IMAGE = ModelFiles("oci://ghcr.io/a/b", DIGEST, image=f"ghcr.io/a/b@{DIGEST}")
MODEL = {
    "apiVersion": "beamlit.com/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "iris", "namespace": "team", "uid": "u"},
}


def errand(made: Any) -> Any:
    assert made is not None
    return made["spec"]


def prefetching(files: ModelFiles) -> Any:
    return errand(
        prefetching_pod(
            MODEL, files, claim="shared", image="ours:1", outgoing=Outgoing(authorities="way-out")
        )
    )


NAMED = {"runtime": {"type": "mlserver"}}
PODS = {
    "serving, fetched with a key": pod(made()),
    "serving, fetched by a role": pod(made(files=replace(FILES, access=WEB))),
    "serving, from a cache": pod(made(cache=Cache("shared", usable=True))),
    "serving, from a claim": pod(made(NAMED, files=CLAIM)),
    "serving, from an image": pod(made(NAMED, files=IMAGE)),
    "prefetching with a key": prefetching(FILES),
    "prefetching by a role": prefetching(replace(FILES, secrets=(), access=WEB)),
    "tidying": errand(
        tidying_pod("team", claim="shared", image="ours:1", limit="1Gi", keep=["0" * 32], then=1)
    ),
}


def containers(spec: Any) -> Iterator[Any]:
    yield from spec.get("initContainers") or ()
    yield from spec["containers"]


@pytest.mark.parametrize("spec", PODS.values(), ids=PODS.keys())
class TestEveryPod:
    def test_keeps_to_the_restricted_standard_and_writes_to_volumes_only(self, spec: Any) -> None:
        of_pod = spec["securityContext"]
        assert of_pod["runAsNonRoot"] is True
        assert of_pod["runAsUser"] > 0
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
        for each in containers(spec):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }

    def test_has_no_token_for_the_clusters_api(self, spec: Any) -> None:
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for volume in spec["volumes"]:
            for source in (volume.get("projected") or {}).get("sources", ()):
                assert source["serviceAccountToken"]["audience"] == "sts.amazonaws.com"

    def test_gives_secrets_and_tokens_to_the_container_that_fetches_alone(self, spec: Any) -> None:
        tokens = {each["name"] for each in spec["volumes"] if "projected" in each}
        for each in containers(spec):
            if each["name"] == "fetch":
                continue
            assert "secretKeyRef" not in json.dumps(each)
            assert "envFrom" not in each
            assert not tokens & {mount["name"] for mount in each.get("volumeMounts") or ()}

    def test_lets_the_model_server_change_no_file_of_the_model(self, spec: Any) -> None:
        for each in spec["containers"]:
            if each["name"] in ("fetch", "tidy"):
                continue
            for mount in each.get("volumeMounts") or ():
                assert mount.get("readOnly") is True or mount["name"] in ("tmp", "shared-memory")

    def test_mounts_nothing_of_the_node(self, spec: Any) -> None:
        for volume in spec["volumes"]:
            assert "hostPath" not in volume


def test_a_name_of_an_account_is_there_only_where_its_token_is() -> None:
    named = {name for name, spec in PODS.items() if "serviceAccountName" in spec}
    assert named == {"serving, fetched by a role", "prefetching by a role"}
    for name in named:
        assert PODS[name]["serviceAccountName"] == "reader"
