"""A pod whose model's files are in a claim: what it mounts, and what must be said of them."""

from __future__ import annotations

from typing import Any

import pytest

from beamlit_operator.api.model import ModelSpec, Origin
from beamlit_operator.api.runtime import Runtime
from beamlit_operator.controllers.stores import model_files, own_secret
from beamlit_operator.controllers.stores import reference as store_reference
from beamlit_operator.workloads.cache import Cache, with_cache
from beamlit_operator.workloads.claimed import unseen_problem
from beamlit_operator.workloads.errands import folder_of
from beamlit_operator.workloads.files import ModelFiles
from beamlit_operator.workloads.pods import pod_spec
from beamlit_operator.workloads.runtimes import server

REVISION = "sha256:" + "ab" * 32
FILES = ModelFiles("pvc://weights/llama/8b", REVISION, claim="weights", folder="llama/8b")
UNPACKED = ModelFiles("pvc://weights", REVISION, claim="weights", unpack=True)
WHOLE = ModelFiles("pvc://weights", REVISION, claim="weights", allow_pickle=True)


def pod(files: ModelFiles) -> Any:
    runtime = Runtime.model_validate({"type": "mlserver"})
    serving = server(runtime, model="m", environment="e", paths=files.paths, gpus=0)
    return pod_spec(serving, files, image="ours:1")


def models_of(container: Any) -> list[Any]:
    return [mount for mount in container["volumeMounts"] if mount["name"] == "models"]


def test_the_claim_is_read_only_and_the_folder_is_where_models_always_are() -> None:
    spec = pod(FILES)
    claim = {"claimName": "weights", "readOnly": True}
    assert {"name": "models", "persistentVolumeClaim": claim} in spec["volumes"]
    (mount,) = models_of(spec["containers"][0])
    assert mount == {
        "name": "models",
        "mountPath": "/mnt/models",
        "readOnly": True,
        "subPath": "llama/8b",
    }
    (fetching,) = spec["initContainers"]
    assert models_of(fetching) == [{"name": "models", "mountPath": "/mnt/claim", "readOnly": True}]
    assert fetching["args"] == [
        *("fetch", "pvc://weights/llama/8b", "/mnt/claim/llama/8b", "--revision", REVISION)
    ]


def test_an_image_is_mounted_by_its_digest_and_pulled_with_the_origins_secret() -> None:
    reference = f"ghcr.io/acme/car@{REVISION}"
    origin = {"oci": {"reference": "ghcr.io/acme/car:v1", "pullSecretRef": {"name": "pull"}}}
    origin["oci"]["mode"] = "Volume"
    part = Origin.model_validate(origin)
    ref = store_reference(part)
    assert ref is not None
    files = model_files(
        ref,
        revision=REVISION,
        paths=(),
        size=5,
        model=ModelSpec(origin=part),
        secret=own_secret(part),
    )
    spec = pod(files)
    volume = {"reference": reference, "pullPolicy": "IfNotPresent"}
    assert {"name": "models", "image": volume} in spec["volumes"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    (mount,) = models_of(spec["containers"][0])
    assert (mount["mountPath"], mount["subPath"]) == ("/mnt/models", "models")
    (fetching,) = spec["initContainers"]
    assert fetching["args"] == [
        *("fetch", "oci://ghcr.io/acme/car", "/mnt/claim/models", "--revision", REVISION),
        "--mounted",
    ]
    # The kubelet pulls: the container that checks needs no password.
    assert not [each for each in fetching["env"] if "valueFrom" in each]
    assert unseen_problem(files, Runtime(), None) is not None
    assert with_cache(spec, cache=Cache("cache", usable=True), image="ours:1") == spec


def test_what_is_in_a_claim_goes_into_no_cache() -> None:
    spec = pod(FILES)
    assert folder_of(FILES, image="ours:1") is None
    assert with_cache(spec, cache=Cache("cache", usable=True), image="ours:1") == spec


def test_a_whole_claim_is_mounted_without_a_sub_path() -> None:
    spec = pod(WHOLE)
    (mount,) = models_of(spec["containers"][0])
    assert "subPath" not in mount
    assert spec["initContainers"][0]["args"] == [
        *("fetch", "pvc://weights", "/mnt/claim", "--revision", REVISION, "--allow-pickle")
    ]


@pytest.mark.parametrize(
    ("files", "runtime", "words"),
    [
        (UNPACKED, {"type": "vllm"}, "unpack them there"),
        (FILES, {}, "does not see the files of claim weights"),
        (FILES, {"type": "llamacpp"}, "name it in spec.runtime.args"),
        (FILES, {"type": "llamacpp", "args": ["--model", "/mnt/models/a.gguf"]}, None),
        (FILES, {"type": "vllm"}, None),
        (FILES, {"type": "not-known"}, None),
        (FILES, {"image": "mine:1"}, None),
        (ModelFiles("s3://a/b", REVISION), {}, None),
    ],
)
def test_what_nobody_but_a_pod_sees_must_be_said(
    files: ModelFiles, runtime: dict[str, Any], words: str | None
) -> None:
    problem = unseen_problem(files, Runtime.model_validate(runtime), None)
    assert (problem is None) == (words is None)
    assert (words or "") in (problem or "")
