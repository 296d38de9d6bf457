"""What only a real cluster can show. Runs where a Docker engine answers, on a kind cluster."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("kind"),
    pytest.mark.skipif(not docker_answers(), reason="no Docker engine answers: kind needs one"),
]


@pytest.fixture(scope="module")
def cluster(kind_cluster):
    for crd in sorted((ROOT / "crds").glob("*.yaml")):
        kind_cluster.kubectl("apply", "--server-side", "-f", str(crd))
    kind_cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return kind_cluster


def test_a_real_api_server_accepts_the_crds_and_every_sample(cluster):
    for folder in ("quickstart", "second-model"):
        cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "samples" / folder))
    listed = cluster.kubectl("get", "beamlit")
    assert "modeldeployment.beamlit.com/iris-production" in listed
    assert "policy.beamlit.com/us-only" in listed


def test_a_real_api_server_refuses_a_malformed_policy_with_the_fix(cluster, tmp_path):
    manifest = tmp_path / "policy.yaml"
    manifest.write_text(
        "apiVersion: beamlit.com/v1alpha1\nkind: Policy\nmetadata: {name: bad}\n"
        "spec: {type: location, locations: [{type: country, name: usa}]}\n"
    )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl("apply", "-f", str(manifest), stderr=subprocess.STDOUT)
    assert "two ISO 3166 letters" in str(refused.value.output)
