"""What ``beamlit render`` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from beamlit_operator.cli import render
from beamlit_operator.workloads import ModelFiles

MANIFESTS = """
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {origin: {s3: {uri: "s3://models/iris"}}}
---
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {}
---
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris, serverlessConfig: {metric: METRIC, target: 60}}
"""


@pytest.mark.parametrize(
    ("metric", "kinds"),
    [
        ("concurrency", ["Service", "Service", "Deployment"]),
        ("memory", ["Service", "Service", "Deployment", "HorizontalPodAutoscaler"]),
    ],
)
async def test_it_prints_all_that_the_operator_would_apply(
    metric: str,
    kinds: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def files(*_: object, **__: object) -> ModelFiles:
        return ModelFiles("s3://models/iris", "sha256:aa", ("model.joblib",), 1)

    monkeypatch.setattr(render, "_files", files)
    path = tmp_path / "all.yaml"
    path.write_text(MANIFESTS.replace("METRIC", metric))
    assert await render.render_command((path,), "team") == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [each["kind"] for each in printed] == kinds
    assert all("ownerReferences" not in each["metadata"] for each in printed)
    if metric == "memory":
        assert printed[-1]["spec"]["scaleTargetRef"]["name"] == printed[-2]["metadata"]["name"]
