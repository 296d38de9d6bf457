"""The sample manifests are what they say, in every way in which one would apply them."""

from pathlib import Path

import pytest
import yaml

from beamlit_operator.api.rollout import Rollout
from beamlit_operator.cli.manifests import read_manifests, read_workspace
from beamlit_operator.cli.parts import STORE_PORT
from beamlit_operator.cli.samples import BUCKET, greeter, train
from beamlit_operator.controllers.stores import own_secret, reference

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


@pytest.mark.parametrize("folder", ["quickstart", "second-model", "lifecycle", "origins"])
def test_every_manifest_fits_its_schema_and_names_no_namespace(folder: str) -> None:
    manifests = read_manifests([SAMPLES / folder])
    read_workspace(manifests, "default")
    assert not [m.source for m in manifests if "namespace" in m.document["metadata"]]


@pytest.mark.parametrize("file", sorted((SAMPLES / "origins").iterdir()), ids=lambda f: f.name)
def test_every_sample_of_an_origin_is_one_that_the_operator_can_read(file: Path) -> None:
    manifests = read_manifests([file])
    secrets = {m.document["metadata"]["name"] for m in manifests if m.document["kind"] == "Secret"}
    for model in read_workspace(manifests, "default").models.values():
        assert model.spec.origin is not None
        assert reference(model.spec.origin) is not None
        used = own_secret(model.spec.origin)
        assert used is None or used.name in secrets


@pytest.mark.parametrize("folder", ["quickstart", "second-model"])
def test_everything_that_is_referred_to_is_there(folder: str) -> None:
    manifests = read_manifests([SAMPLES / folder])
    found = read_workspace(manifests, "default")
    secrets = {m.document["metadata"]["name"] for m in manifests if m.document["kind"] == "Secret"}
    (deployment,) = found.deployments.values()
    (model,) = found.models.values()
    assert deployment.spec.model == model.metadata.name
    environment = found.environments[deployment.spec.environment]
    attached = {p.name for p in (*environment.spec.policies, *deployment.spec.policies)}
    assert attached == set(found.policies)
    assert model.spec.origin is not None
    assert model.spec.origin.s3 is not None
    assert model.spec.origin.s3.uri == f"s3://{BUCKET}/{model.metadata.name}"
    assert model.spec.origin.s3.endpoint == f"http://127.0.0.1:{STORE_PORT}"
    assert model.spec.origin.s3.credentials_secret_ref is not None
    assert model.spec.origin.s3.credentials_secret_ref.name in secrets
    assert (SAMPLES / "requests" / f"{model.metadata.name}.json").exists()


@pytest.mark.parametrize("folder", ["quickstart", "second-model"])
def test_what_is_referred_to_is_applied_before_what_refers_to_it(folder: str) -> None:
    there: set[tuple[str, str]] = set()
    for file in sorted((SAMPLES / folder).iterdir()):
        for document in yaml.safe_load_all(file.read_text()):
            kind, spec = document["kind"], document.get("spec", {})
            attached = spec.get("policies", [])
            named = {("Policy", each["name"]) for each in attached}
            if kind == "ModelDeployment":
                named |= {("Model", spec["model"]), ("Environment", spec["environment"])}
            elif kind == "Model":
                named.add(("Secret", spec["origin"]["s3"]["credentialsSecretRef"]["name"]))
            assert named <= there, f"{file.name} would warn of what comes after it"
            there.add((kind, document["metadata"]["name"]))


def test_the_kustomization_lists_the_whole_quickstart() -> None:
    listed = yaml.safe_load((SAMPLES / "kustomization.yaml").read_text())["resources"]
    there = {f"quickstart/{file.name}" for file in (SAMPLES / "quickstart").iterdir()}
    assert set(listed) == there
    assert len(listed) == len(there)


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_a_sample_model_is_really_trained(name: str) -> None:
    sample, content = train(name)
    assert sample.accuracy > 0.85
    assert sample.bytes == len(content) > 1000


@pytest.mark.parametrize("file", sorted((SAMPLES / "lifecycle" / "rollouts").iterdir()))
def test_every_sample_of_a_rollout_is_a_patch_that_fits(file: Path) -> None:
    patch = yaml.safe_load(file.read_text())
    assert set(patch) == {"spec"}
    assert set(patch["spec"]) == {"rollout"}
    given = {name: value for name, value in patch["spec"]["rollout"].items() if value is not None}
    rollout = Rollout.model_validate(given)
    assert rollout.to_wire().items() >= {"strategy": given["strategy"]}.items()


def test_the_lifecycle_samples_refer_to_what_is_there() -> None:
    manifests = read_manifests([SAMPLES / "lifecycle"])
    found = read_workspace(manifests, "default")
    (deployment,) = found.deployments.values()
    (model,) = found.models.values()
    assert deployment.spec.model == model.metadata.name
    assert deployment.spec.environment in found.environments
    attached = {p.name for e in found.environments.values() for p in e.spec.policies}
    assert attached == set(found.policies)
    assert model.spec.origin is not None
    assert model.spec.origin.s3 is not None
    assert model.spec.origin.s3.uri == f"s3://{BUCKET}/greeter"
    runtime = deployment.spec.runtime
    assert runtime is not None
    assert [*(runtime.command or ())][-1] == f"/mnt/models/{next(iter(greeter()))}"


TUTORIALS = SAMPLES / "tutorials"


@pytest.mark.parametrize("folder", sorted(TUTORIALS.iterdir()), ids=lambda path: path.name)
def test_a_tutorials_manifests_fit_and_its_page_uses_each_of_them(folder: Path) -> None:
    page = (SAMPLES.parents[1] / "docs" / "tutorials" / f"{folder.name}.md").read_text()
    unused = [file.name for file in folder.iterdir() if f"{folder.name}/{file.name}" not in page]
    assert not unused
    manifests = read_manifests([file for file in folder.glob("*.yaml") if file.stem != "canary"])
    found = read_workspace(manifests, "default")
    assert not [m.source for m in manifests if "namespace" in m.document["metadata"]]
    for deployment in found.deployments.values():
        assert deployment.spec.environment in found.environments
    assert {d.spec.model for d in found.deployments.values()} == {
        model.metadata.name for model in found.models.values()
    }
    attached = {p.name for e in found.environments.values() for p in e.spec.policies}
    assert attached == set(found.policies)


def test_the_tutorials_canary_is_a_patch_that_fits() -> None:
    file = TUTORIALS / "fine-tuned-from-hugging-face" / "canary.yaml"
    patch = yaml.safe_load(file.read_text())["spec"]
    assert set(patch) == {"serverlessConfig", "rollout"}
    rollout = Rollout.model_validate(patch["rollout"])
    assert [step.weight for step in rollout.steps or ()] == [50]
