"""Which catalogue a command decides by when a cluster holds it."""

from __future__ import annotations

import pytest
from tests.support.fakekube import FakeKube

from beamlit_operator.cli import catalogues
from beamlit_operator.kube import CONFIG_MAPS, ApiError, Json, Resource
from beamlit_operator.policy import built_in


class Forbidding(FakeKube):
    """Lets nobody read ConfigMaps."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Json:
        raise ApiError(403, "Forbidden", "configmaps is forbidden")


def config_map(name: str, namespace: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"regions.yaml": "clouds: {own: {regions: berlin-1 de Berlin}}"},
    }


async def test_without_a_config_map_it_is_the_built_in_one() -> None:
    assert await catalogues.from_cluster(FakeKube()) is built_in()


async def test_the_operators_own_settings_name_the_config_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = FakeKube()
    await client.create(CONFIG_MAPS, config_map("mine", "ops"), "ops")
    assert await catalogues.from_cluster(client) is built_in()
    monkeypatch.setenv("BEAMLIT_CATALOGUE", "mine")
    monkeypatch.setenv("BEAMLIT_OPERATOR_NAMESPACE", "ops")
    assert (await catalogues.from_cluster(client)).country_of("berlin-1") == "de"


async def test_one_that_may_not_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert await catalogues.from_cluster(Forbidding()) is built_in()
    said = capsys.readouterr().err
    assert "beamlit-system/beamlit-catalogue) may not be read" in said
    assert "--catalogue FILE" in said
