"""The cluster's own catalogue is followed live: what it says moves deployments, at once."""

from __future__ import annotations

import yaml
from tests.integration.controllers.conftest import DEADLINE, TEAM, Lab
from tests.integration.controllers.test_operator import DEPLOYMENT, ENVIRONMENT, MODEL, SECRET

from beamlit_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    NODES,
    POLICIES,
)

SYSTEM = "beamlit-system"
BERLIN = """
apiVersion: v1
kind: Node
metadata:
  name: berlin
  labels: {topology.kubernetes.io/region: Berlin-1, kubernetes.io/arch: amd64, acme/gpu: big}
"""
GERMANY = """
apiVersion: beamlit.com/v1alpha1
kind: Policy
metadata: {name: where}
spec: {type: location, locations: [{type: country, name: de}]}
"""
CATALOGUE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: beamlit-catalogue, namespace: beamlit-system}
data:
  regions.yaml: |
    clouds: {onprem: {regions: "Berlin-1 de Adlershof\\nParis-1 xx nowhere\\nus-west-1 ca moved"}}
  flavors.yaml: |
    gpu: {big: {device: nvidia, labels: {acme/gpu: [big]}}}
"""
ALL = "---".join((SECRET, GERMANY, ENVIRONMENT, MODEL, DEPLOYMENT))


async def catalogue_events(lab: Lab) -> dict[str, str]:
    found = (await lab.client.list(EVENTS, SYSTEM)).items
    return {
        e["reason"]: e["message"] for e in found if e["involvedObject"]["name"].endswith("logue")
    }


async def test_a_catalogue_gives_nodes_their_country_and_its_end_takes_it_again(lab: Lab) -> None:
    await lab.client.create(NODES, yaml.safe_load(BERLIN))
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("NoPlacement")
    await lab.apply(CATALOGUE)
    await lab.until_ready("Idle")

    async def told() -> bool:
        return {"CatalogueProblem", "CatalogueOverridden"} <= set(await catalogue_events(lab))

    await lab.until(told, f"events within {DEADLINE} s")
    events = await catalogue_events(lab)
    assert "'xx' is not an ISO 3166-1" in events["CatalogueProblem"]
    assert "us-west-1 counts as in ca" in events["CatalogueOverridden"]
    await lab.client.delete(CONFIG_MAPS, "beamlit-catalogue", SYSTEM)
    await lab.until_ready("NoPlacement")


async def test_a_flavor_of_the_catalogue_is_known_by_its_own_label(lab: Lab) -> None:
    await lab.client.create(NODES, yaml.safe_load(BERLIN))
    await lab.start_operator()
    big = "flavors: [{type: gpu, name: BIG}]"
    await lab.apply(ALL.replace("spec: {model: iris}", f"spec: {{model: iris, {big}}}"))
    await lab.until_ready("NoPlacement")
    # The node's label counts although the operator had no reason to look at it before.
    await lab.apply(CATALOGUE)
    await lab.until_ready("Idle")
    await lab.stop_operator()
    await lab.start_operator()
    await lab.settle()
    assert (await lab.ready(MODEL_DEPLOYMENTS, "iris"))[1] == "Idle"


async def test_an_addition_to_the_catalogue_restarts_nothing_that_runs(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL.replace("name: de", "name: us"))
    await lab.until_ready("Idle")
    name = (await lab.revision())["metadata"]["name"]
    await lab.scale(name, 1)
    await lab.play(name, ready=1)
    await lab.until_ready("Serving")
    await lab.settle()
    before = await lab.revision()
    added = CATALOGUE.replace("Berlin-1 de", "Boston-1 us").replace("us-west-1 ca", "us-west-1 us")
    await lab.apply(added)
    operator = lab.operator
    assert operator is not None
    await lab.until(
        lambda: operator.cataloguing.catalogue.country_of("boston-1") == "us", "catalogue read"
    )
    await lab.settle()
    after = await lab.revision()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    await lab.scale(name, 0)
    await lab.play(name, ready=0)

    async def widened() -> bool:
        return "Boston-1" in str((await lab.client.get(DEPLOYMENTS, name, TEAM))["spec"])

    await lab.until(widened, "an idle revision takes what was added")
    assert (await lab.ready(POLICIES, "where"))[1] == "Ready"
