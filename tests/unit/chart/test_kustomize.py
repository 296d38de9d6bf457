"""What `kubectl apply -k` applies is what the chart installs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import builtin
from tests.support.chart import Json

charttemplates = pytest.importorskip(
    "tests.support.charttemplates",
    reason="helm-python-sdk, Helm's templates as a package, is not there for this machine",
    exc_type=ImportError,
)

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
HELMS_OWN = {"helm.sh/chart", "app.kubernetes.io/managed-by", "helm.sh/resource-policy"}


def module() -> Any:
    spec = importlib.util.spec_from_file_location("kustomize", ROOT / "helm" / "kustomize.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["kustomize"] = found
    spec.loader.exec_module(found)
    return found


KUSTOMIZE = module()


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    with charttemplates.templates() as chart:
        yield chart


def built(folder: str) -> list[Json]:
    command = ["kubectl", "kustomize", str(MANIFESTS / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return charttemplates.parsed(done.stdout)


def compared(objects: list[Json]) -> dict[tuple[str, str], Json]:
    """Without what is Helm's or Kustomize's own: hooks, the namespace, labels of who keeps it."""
    return {
        (each["kind"], each["metadata"]["name"]): shared(each)
        for each in objects
        if each["kind"] != "Namespace" and "helm.sh/hook" not in annotations(each)
    }


def annotations(body: Json) -> Json:
    found: Json = body["metadata"].get("annotations") or {}
    return found


def shared(value: Any) -> Any:
    if isinstance(value, list):
        return [shared(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: shared(each) for key, each in value.items() if key not in HELMS_OWN}
    return {key: each for key, each in kept.items() if (key, each) != ("annotations", {})}


def test_manifests_are_up_to_date() -> None:
    assert KUSTOMIZE.main(["--check"]) == 0


def test_a_stale_manifest_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, text = next(iter(KUSTOMIZE.files().items()))
    monkeypatch.setattr(KUSTOMIZE, "files", lambda: {path: text + "# more\n"})
    assert KUSTOMIZE.main(["--check"]) == 1
    assert path.name in capsys.readouterr().err


def test_default_is_what_the_chart_installs(chart: Any) -> None:
    here, there = compared(built("default")), compared(chart.objects())
    assert here.keys() == there.keys()
    for key, each in here.items():
        assert each == there[key], key


@pytest.mark.parametrize("name", sorted(KUSTOMIZE.OVERLAYS))
def test_an_overlay_is_what_the_chart_makes_of_its_values(chart: Any, name: str) -> None:
    _, values = KUSTOMIZE.OVERLAYS[name]
    here, there = compared(built(f"overlays/{name}")), compared(chart.objects(values))
    assert here.keys() == there.keys()
    assert {key: each for key, each in here.items() if each != there[key]} == {}


def test_every_folder_can_be_built_and_is_valid() -> None:
    # Those of the overlays are compared above.
    folders = {
        path.parent.relative_to(MANIFESTS).as_posix()
        for path in MANIFESTS.rglob("kustomization.yaml")
    }
    parts = {folder for folder in folders if "/" not in folder}
    assert parts >= {"crd", "rbac", "admission", "operator", "gateway", "default", "samples"}
    for folder in sorted(parts - {"default"}):
        for each in built(folder):
            if not each["apiVersion"].startswith("beamlit.com"):
                builtin.check(each)
