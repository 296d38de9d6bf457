"""``beamlit policy explain -f``: the samples and small variations of them, without a cluster."""

import json
from pathlib import Path

import pytest

from beamlit_operator.cli.main import main

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
QUICKSTART = SAMPLES / "quickstart"


def quickstart_without(folder: Path, *names: str, **replacements: str) -> Path:
    """A copy of the quickstart without some files, and with texts replaced in all of them."""
    for file in QUICKSTART.glob("*.yaml"):
        if file.name not in names:
            text = file.read_text()
            for old, new in replacements.items():
                text = text.replace(old, new)
            (folder / file.name).write_text(text)
    return folder


def test_the_quickstart_is_not_compliant_because_australia_is_overridden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["policy", "explain", "iris-production", "-f", str(QUICKSTART), "-o", "json"])
    answer = json.loads(capsys.readouterr().out)
    assert status == 1
    assert answer["deployment"] == "iris-production"
    assert answer["location"]["allowed"] == ["country:us"]
    assert {p["name"]: p["effect"] for p in answer["location"]["policies"]} == {
        "us-only": "enforced",
        "australia": "overridden",
    }
    assert answer["flavor"] == {"allowed": None, "policies": []}


def test_a_deployment_without_policies_is_compliant(capsys: pytest.CaptureFixture[str]) -> None:
    folder = SAMPLES / "second-model"
    assert main(["policy", "explain", "wine-development", "-f", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "location: anything" in out
    assert out.rstrip().endswith("compliant")


def test_a_missing_policy_is_not_compliant_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = quickstart_without(tmp_path, "1-policy-us-only.yaml")
    assert main(["policy", "explain", "iris-production", "-f", str(folder)]) == 1
    assert "us-only" in capsys.readouterr().out


def test_a_deployment_that_agrees_with_its_environment_is_compliant(tmp_path: Path) -> None:
    folder = quickstart_without(tmp_path, **{"name: au\n": "name: us-east-1\n"})
    text = (folder / "1-policy-australia.yaml").read_text()
    (folder / "1-policy-australia.yaml").write_text(text.replace("type: country", "type: location"))
    assert main(["policy", "explain", "iris-production", "-f", str(folder)]) == 0


def test_an_unknown_deployment_is_bad_input_and_the_known_ones_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["policy", "explain", "rose", "-f", str(QUICKSTART)]) == 2
    assert "there: iris-production" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind: [", "not YAML"),
        ("- a\n- b\n", "a document must be an object"),
        (
            "apiVersion: beamlit.com/v1alpha1\nkind: Policy\nmetadata: {name: p}\n"
            "spec: {type: weather}\n",
            "Policy p is not valid:\n  spec.type: Input should be",
        ),
    ],
)
def test_bad_manifests_are_refused_with_file_object_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert main(["policy", "explain", "iris-production", "-f", str(file)]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert "bad.yaml" in err


def test_a_file_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", "x", "-f", "/nowhere/x.yaml"]) == 2
    assert "/nowhere/x.yaml: cannot be read" in capsys.readouterr().err


def test_objects_of_another_namespace_are_not_mixed_in(tmp_path: Path) -> None:
    folder = quickstart_without(
        tmp_path, **{"name: us-only\nspec": "name: us-only\n  namespace: elsewhere\nspec"}
    )
    arguments = ["policy", "explain", "iris-production", "-f", str(folder)]
    assert main([*arguments, "-n", "default", "-o", "json"]) == 1


POLICY = """
apiVersion: beamlit.com/v1alpha1
kind: Policy
metadata: {name: NAME}
spec: {type: TYPE, TYPEs: [{type: KIND, name: VALUE}]}
"""
REST = """
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {policies: [{name: one, mandatory: true}, {name: two, mandatory: true}]}
---
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris, flavors: [{type: gpu, name: Tesla-T4}]}
"""
CATALOGUE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: beamlit-catalogue, namespace: beamlit-system}
data: {regions.yaml: "clouds: {own: {regions: berlin-1 de Berlin}}", other: ""}
"""


def policy(name: str, value: str) -> str:
    kind, _, text = value.partition(":")
    policy_type = "flavor" if kind in ("cpu", "gpu") else "location"
    return (
        POLICY.replace("NAME", name)
        .replace("TYPE", policy_type)
        .replace("KIND", kind)
        .replace("VALUE", text)
    )


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict, str]:
    status = main(["policy", "explain", "iris", "-o", "json", *arguments])
    said = capsys.readouterr()
    return status, json.loads(said.out or "{}"), said.err


@pytest.mark.parametrize(("allowed", "status"), [("gpu:t4", 0), ("gpu:T4", 0), ("gpu:l4", 1)])
def test_a_flavor_is_compliant_under_any_of_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], allowed: str, status: int
) -> None:
    text = "---".join((policy("one", allowed), policy("two", "country:us"), REST))
    (tmp_path / "all.yaml").write_text(text)
    assert explained(capsys, "-f", str(tmp_path))[0] == status


MODEL = """
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {runtime: {resources: {limits: {DEVICE: 1}}}}
"""


@pytest.mark.parametrize(
    ("device", "status"),
    [("nvidia.com/gpu", 1), ("habana.ai/gaudi", 1), ("google.com/tpu", 1), ("cpu", 0)],
)
@pytest.mark.parametrize("where", ["deployment", "model", "template"])
def test_a_device_that_is_asked_for_by_name_must_be_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, status: int, where: str
) -> None:
    text = "---".join((policy("one", "cpu:x86"), policy("two", "country:us"), REST))
    own = f"resources: {{limits: {{{device}: 1}}}}"
    asked = {
        "deployment": f"runtime: {{{own}}}",
        "model": "flavors: []",
        "template": f"podTemplate: {{spec: {{containers: [{{name: model, {own}}}]}}}}",
    }[where]
    text = text.replace("flavors: [{type: gpu, name: Tesla-T4}]", asked)
    if where == "model":
        text += "---" + MODEL.replace("DEVICE", device)
    (tmp_path / "all.yaml").write_text(text)
    assert explained(capsys, "-f", str(tmp_path))[0] == status


def test_a_second_mandatory_policy_is_said_to_widen_in_the_table_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "---".join((policy("one", "country:de"), policy("two", "country:fr"), REST))
    (tmp_path / "all.yaml").write_text(text)
    status, answer, _ = explained(capsys, "-f", str(tmp_path))
    assert (status, answer["location"]["allowed"]) == (0, ["country:de", "country:fr"])
    one, two = answer["location"]["policies"]
    assert "it stands beside two (country:fr): each of them widens" in one["because"]
    assert "it stands beside one (country:de): each of them widens" in two["because"]
    assert main(["policy", "explain", "iris", "-f", str(tmp_path)]) == 0
    assert "add up" in capsys.readouterr().out


def test_the_catalogue_comes_from_the_manifests_or_from_the_file_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "---".join((policy("one", "country:de"), policy("two", "gpu:t4"), REST))
    text = text.replace("flavors: [{type", "policies: [{name: three}], flavors: [{type")
    (tmp_path / "all.yaml").write_text(text + "---" + policy("three", "location:berlin-1"))
    files = ("-f", str(tmp_path / "all.yaml"))
    status, answer, _ = explained(capsys, *files)
    assert (status, answer["location"]["allowed"]) == (1, ["country:de"])
    own = tmp_path / "catalogue.yaml"
    own.write_text(CATALOGUE)
    status, answer, err = explained(capsys, *files, "--catalogue", str(own))
    assert (status, answer["location"]["allowed"]) == (0, ["location:berlin-1"])
    assert "other: is not known: use regions.yaml or flavors.yaml" in err
    assert explained(capsys, *files, "-f", str(own))[:2] == (status, answer)
    status, _, err = explained(capsys, *files, "--catalogue", str(tmp_path / "all.yaml"))
    assert status == 2
    assert "one ConfigMap" in err


def test_each_workspace_has_its_own_objects_and_one_of_two_must_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for space, country in (("a", "us"), ("b", "de")):
        text = "---".join((policy("one", f"country:{country}"), policy("two", "gpu:t4"), REST))
        placed = text.replace("metadata: {", f"metadata: {{namespace: {space}, ")
        (tmp_path / f"{space}.yaml").write_text(placed)
    status, _, err = explained(capsys, "-f", str(tmp_path))
    assert status == 2
    assert "a and b: choose with -n" in err
    answer = explained(capsys, "-f", str(tmp_path), "-n", "b")[1]
    assert answer["location"]["allowed"] == ["country:de"]
