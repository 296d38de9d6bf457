"""The chart on a real cluster: the quickstart, policies, new versions, restarts and drains."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import SiteOn
from tests.support import scenarios
from tests.support.release import Release
from tests.support.stack import ROOT


@pytest.fixture(scope="module", autouse=True)
def installed(release: Release) -> Iterator[None]:
    asyncio.run(release.install(timeout=600))
    yield
    asyncio.run(release.uninstall())


async def test_a_model_serves_gets_a_new_version_and_survives_restarts_and_drains(
    site_on: SiteOn,
) -> None:
    async with site_on() as site:
        workspace = await scenarios.quickstart(site)
        await scenarios.rollout(site, workspace)
        await scenarios.restarts(site, workspace)
        await scenarios.drained(site, workspace)
        await scenarios.drained(site, workspace, "operator")


async def test_a_mandatory_policy_decides_where_a_model_runs(site_on: SiteOn) -> None:
    async with site_on() as site:
        await scenarios.policy(site)


async def test_helm_test_passes(release: Release) -> None:
    await release.test()


def test_a_real_api_server_accepts_every_sample(cluster: Any) -> None:
    for folder in ("quickstart", "second-model"):
        cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "samples" / folder))
    listed = cluster.kubectl("get", "beamlit")
    assert "modeldeployment.beamlit.com/iris-production" in listed
    assert "policy.beamlit.com/us-only" in listed
    for folder in ("quickstart", "second-model"):
        cluster.kubectl("delete", "-f", str(ROOT / "manifests" / "samples" / folder))


def test_a_real_api_server_refuses_a_malformed_policy_with_the_fix(
    cluster: Any, tmp_path: Path
) -> None:
    manifest = tmp_path / "policy.yaml"
    manifest.write_text(
        "apiVersion: beamlit.com/v1alpha1\nkind: Policy\nmetadata: {name: bad}\n"
        "spec: {type: location, locations: [{type: country, name: usa}]}\n"
    )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl("apply", "-f", str(manifest), stderr=subprocess.STDOUT)
    assert "two ISO 3166 letters" in str(refused.value.output)
