"""What ``beamlit render`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.cli import render
from beamlit_operator.origins import OriginRef, ResolvedOrigin
from beamlit_operator.origins.inspection import Inspection
from beamlit_operator.origins.listing import OriginFile
from beamlit_operator.workloads import ModelFiles

PRODUCTION = """
---
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
spec: {}
"""

MANIFESTS = """
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {origin: {s3: {uri: "s3://models/iris"}}}
---
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris, serverlessConfig: {metric: METRIC, target: 60}}
"""


async def printed_for(
    manifests: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, Any]]:
    """What is printed for these manifests and an Environment."""
    path = folder / "all.yaml"
    path.write_text(manifests + PRODUCTION)
    assert await render.render_command((path,), "team") == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


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
    printed = await printed_for(MANIFESTS.replace("METRIC", metric), tmp_path, capsys)
    assert [each["kind"] for each in printed] == kinds
    assert all("ownerReferences" not in each["metadata"] for each in printed)
    if metric == "memory":
        assert printed[-1]["spec"]["scaleTargetRef"]["name"] == printed[-2]["metadata"]["name"]


IDENTIFIED = """
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec:
  allowPickle: true
  origin:
    s3:
      uri: s3://models/iris
      webIdentity: {serviceAccountName: reader}
      caConfigMapRef: {name: our-ca}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::1:role/models"}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: our-ca}
data: {ca.crt: of the manifests}
---
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris}
"""


async def test_it_prints_who_fetches_and_whom_that_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, str]] = []

    async def resolve(_: OriginRef, credentials: dict[str, str]) -> ResolvedOrigin:
        seen.append(credentials)
        return ResolvedOrigin("sha256:aa", (OriginFile("model.joblib", 1, "e", "k"),), 1)

    async def inspect(*_: object) -> Inspection:
        return Inspection(ModelFacts())

    monkeypatch.setattr(render, "resolve", resolve)
    monkeypatch.setattr(render, "inspect", inspect)
    deployment = (await printed_for(IDENTIFIED, tmp_path, capsys))[-1]
    assert seen == [{"ca.crt": "of the manifests"}]
    pod = deployment["spec"]["template"]["spec"]
    told = {each["name"]: each.get("value") for each in pod["initContainers"][0]["env"]}
    assert pod["serviceAccountName"] == "reader"
    assert told["AWS_ROLE_ARN"] == "arn:aws:iam::1:role/models"
    assert told["AWS_ROLE_SESSION_NAME"] == "team.iris"
