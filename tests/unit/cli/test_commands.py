"""What a person sees when something is not right: a sentence and an exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamlit_operator import __version__
from beamlit_operator.cli.main import main
from beamlit_operator.cli.ports import LOOPBACK, free_ports

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: me, namespace: team-a}}}}]
clusters: [{{name: here, cluster: {{server: "http://{host}:{port}"}}}}]
users: [{{name: me, user: {{token: secret-token}}}}]
"""


@pytest.fixture
def nobody_home(tmp_path: Path) -> str:
    """A kubeconfig for an API server that does not run."""
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG.format(host=LOOPBACK, port=free_ports(1)[0]))
    return str(path)


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_is_printed(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "command",
    [
        *("dev", "demo", "fetch", "get", "status", "invoke", "policy", "console", "pull", "render"),
        *("release", "rollout", "history", "activate", "deactivate", "delete"),
    ],
)
def test_help_names_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert f" {command} " in capsys.readouterr().out


def test_an_unknown_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frob"]) == 2
    assert "frob" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "models"],
        ["get", "deployments", "-A"],
        ["status", "iris"],
        ["invoke", "iris", "-d", "{}"],
        ["policy", "explain", "iris"],
        ["release", "iris", "--from", "development", "--to", "production"],
        ["rollout", "status"],
        ["rollout", "promote", "iris", "--full"],
        ["rollout", "abort", "iris"],
        ["rollout", "undo", "iris", "-e", "production"],
        ["history", "iris"],
        ["activate", "iris"],
        ["deactivate", "iris"],
        ["delete", "model", "iris"],
    ],
)
def test_a_cluster_that_does_not_answer_is_said(
    arguments: list[str], nobody_home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The 1 of `policy explain` means that the deployment is not compliant.
    expected = 2 if arguments[0] == "policy" else 1
    assert main([*arguments, "--kubeconfig", nobody_home]) == expected
    err = capsys.readouterr().err
    assert err.startswith("beamlit: the API server does not answer")
    assert "secret-token" not in err


def test_the_workspace_is_that_of_the_context(
    nobody_home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", "models", "--kubeconfig", nobody_home]) == 1
    assert "/namespaces/team-a/" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["get", "models"], ["console"]])
def test_a_kubeconfig_that_is_not_there_is_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "no cluster to talk to: /nowhere/config does not exist" in err
    assert "beamlit dev" in err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("junk", "is not a kubeconfig"),
        ("a: [", "cannot be read"),
        ("", "is not a kubeconfig"),
        ("clusters: []", "current-context"),
    ],
)
@pytest.mark.parametrize("command", [["get", "models"], ["status", "x"]])
def test_a_file_that_is_no_kubeconfig_is_named(
    command: list[str], content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    assert main([*command, "--kubeconfig", str(file)]) == 1
    err = capsys.readouterr().err
    assert "no cluster to talk to" in err
    assert says in err


def test_no_kubeconfig_at_all_says_where_one_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["get", "models"]) == 1
    assert f"{tmp_path}/.kube/config does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dev", "--api-port", "99999"],
        ["dev", "--gateway-port", "65536"],
        ["console", "--port", "-1"],
    ],
)
def test_a_port_that_is_none_is_bad_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_request_body_that_is_not_there_is_bad_input(
    nobody_home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["invoke", "iris", "-d", "@/nowhere.json", "--kubeconfig", nobody_home]) == 2
    assert "--data: /nowhere.json cannot be read" in capsys.readouterr().err


def test_a_release_to_where_it_comes_from_is_bad_input(
    nobody_home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ("--from", "production", "--to", "production")
    assert main(["release", "iris", *there, "--kubeconfig", nobody_home]) == 2
    assert "--from and --to are both production" in capsys.readouterr().err


def test_an_image_that_nothing_stands_for_is_bad_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pull", "docker.io/library/nginx:1"]) == 2
    assert "no local program stands for image" in capsys.readouterr().err


def test_render_names_the_model_that_is_not_among_the_manifests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples = Path(__file__).parents[3] / "manifests" / "samples"
    assert main(["render", "-f", str(samples / "quickstart" / "5-modeldeployment.yaml")]) == 2
    assert "spec.model: Model iris is not in the manifests" in capsys.readouterr().err


def test_render_needs_a_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    samples = Path(__file__).parents[3] / "manifests" / "samples"
    assert main(["render", "-f", str(samples / "quickstart" / "4-model.yaml")]) == 2
    assert "there is no ModelDeployment" in capsys.readouterr().err
