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
    folder = quickstart_without(tmp_path, "policy-us-only.yaml")
    assert main(["policy", "explain", "iris-production", "-f", str(folder)]) == 1
    assert "us-only" in capsys.readouterr().out


def test_a_deployment_that_agrees_with_its_environment_is_compliant(tmp_path: Path) -> None:
    folder = quickstart_without(tmp_path, **{"name: au\n": "name: us-east-1\n"})
    text = (folder / "policy-australia.yaml").read_text()
    (folder / "policy-australia.yaml").write_text(text.replace("type: country", "type: location"))
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
