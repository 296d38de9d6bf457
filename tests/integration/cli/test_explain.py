"""``beamlit policy explain`` answers the same from a cluster and from the manifests in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.policy.test_documentation import EXAMPLES

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.cli.main import main
from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import CUSTOM_RESOURCE_DEFINITIONS, KubeClient, resource_of

API = "beamlit.com/v1alpha1"
CATALOGUE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "beamlit-catalogue", "namespace": "beamlit-system"},
    "data": {"regions.yaml": "clouds: {own: {regions: berlin-1 de Berlin}}"},
}
OWN: dict[str, Any] = {
    "policies": {"germany": ["country:de"], "berlin": ["location:berlin-1"]},
    "environment": {"mandatory": ["germany"]},
    "deployment": {"policies": [{"name": "berlin"}]},
}


def manifests(given: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    """An example of the documentation as objects in a namespace."""
    metadata = {"namespace": namespace}
    found: list[dict[str, Any]] = []
    for name, values in given["policies"].items():
        kind = "flavor" if values[0].startswith(("cpu:", "gpu:")) else "location"
        entries = [dict(zip(("type", "name"), value.split(":"), strict=True)) for value in values]
        spec = {"type": kind, f"{kind}s": entries}
        found.append({"kind": "Policy", "metadata": {"name": name, **metadata}, "spec": spec})
    if (attached := given["environment"]) is not None:
        policies = [{"name": name, "mandatory": True} for name in attached.get("mandatory", ())]
        policies += [{"name": name} for name in attached.get("optional", ())]
        found.append(
            {
                "kind": "Environment",
                "metadata": {"name": "production", **metadata},
                "spec": {"policies": policies},
            }
        )
    spec = {"model": "iris", **given["deployment"]}
    found.append(
        {"kind": "ModelDeployment", "metadata": {"name": "iris", **metadata}, "spec": spec}
    )
    return [{"apiVersion": API, **each} for each in found]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubeClient, Path]]:
    server = ApiServer(data_dir=tmp_path / "cluster")
    await server.start()
    try:
        for kind in KINDS:
            await server.client.apply(CUSTOM_RESOURCE_DEFINITIONS, crd(kind), field_manager="test")
        yield server.client, server.kubeconfig(tmp_path / "kubeconfig")
    finally:
        await server.stop()


async def apply(client: KubeClient, documents: list[dict[str, Any]]) -> None:
    for space in {each["metadata"]["namespace"] for each in documents}:
        await client.apply(
            resource_of("v1", "Namespace"),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}},
            field_manager="test",
        )
    for each in documents:
        resource = resource_of(each["apiVersion"], each["kind"])
        await client.apply(resource, each, field_manager="test")


async def test_the_answer_is_the_same_online_and_offline(
    cluster: tuple[KubeClient, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, kubeconfig = cluster
    await apply(client, [CATALOGUE])
    given = [yaml.safe_load(text) for _, text, _ in EXAMPLES]
    statuses = set()
    for number, example in enumerate([OWN, *given]):
        documents = manifests(example, f"team-{number}")
        await apply(client, documents)
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump_all([*documents, CATALOGUE]))
        answers: list[list[Any]] = []
        for where in (("-f", str(file)), ("-n", f"team-{number}", "--kubeconfig", str(kubeconfig))):
            arguments = ["policy", "explain", "iris", "-o", "json", *where]
            status = await asyncio.to_thread(main, arguments)
            answers.append([status, json.loads(capsys.readouterr().out)])
            if example is OWN:
                assert await asyncio.to_thread(main, ["policy", "explain", "iris", *where]) == 0
                answers[-1].append(capsys.readouterr().out)
        assert answers[0] == answers[1], example
        statuses.add(answers[0][0])
        if example is OWN:
            assert answers[0][1]["location"]["allowed"] == ["location:berlin-1"]
    assert statuses == {0, 1}
