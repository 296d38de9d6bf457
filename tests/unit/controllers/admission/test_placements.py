"""What is written down of a placement is all of it: else a pod needs to carry only a part."""

from __future__ import annotations

import pytest

from beamlit_operator.api.policy import Flavor
from beamlit_operator.controllers.admission.placements import Book, line
from beamlit_operator.kube import Json, ObjectKey
from beamlit_operator.policy import Aspect, Catalogue, EffectivePolicy, Value, built_in
from beamlit_operator.policy.extending import extended
from beamlit_operator.policy.placement import place
from beamlit_operator.workloads.placing import annotations_of

IRIS = ObjectKey("team", "iris")
OWN_GPU = "gpu: {big: {device: nvidia, labels: {acme/gpu: [big]}}}"


def held_to(*values: str) -> EffectivePolicy:
    parsed = [Value(*value.split(":")) for value in values]
    hardware = frozenset(value for value in parsed if value.kind in ("cpu", "gpu"))
    where = frozenset(parsed) - hardware
    return EffectivePolicy(location=Aspect(where or None, ()), flavor=Aspect(hardware or None, ()))


def wanted(policy: EffectivePolicy, catalogue: Catalogue) -> Json:
    gpus = [Flavor(type="gpu", name=v.name) for v in policy.flavor.allowed or () if v.kind == "gpu"]
    pod = {"affinity": place(policy, requested=gpus, catalogue=catalogue).affinity}
    metadata = {"annotations": annotations_of(policy)}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": pod}}}


def terms_of(workload: Json) -> set[str]:
    node = workload["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return {"".join(map(line, term["matchExpressions"])) for term in terms}


def written(book: Book) -> set[str]:
    """Every start of a term that a pod of the deployment may have."""
    data = book.data()
    location, hardware = data[data["team.iris"]].split("\n")[:2]
    return {one + other for one in data[location].split(";") for other in data[hardware].split(";")}


@pytest.mark.parametrize(
    "values",
    [
        ["country:us"],
        ["country:us", "gpu:t4"],
        ["continent:eu", "cpu:x86"],
        ["location:us-east-1a"],
        ["location:us-east-1a", "location:eu-west-1", "gpu:h100"],
        ["gpu:t4"],
    ],
)
def test_what_is_written_down_of_a_placement_is_the_whole_of_it(values: list[str]) -> None:
    policy = held_to(*values)
    book, workload = Book(catalogue=built_in()), wanted(policy, built_in())
    assert book.decided(IRIS, policy, workload)
    assert written(book) == terms_of(workload)


def test_the_clusters_own_flavors_are_written_down_as_soon_as_they_are_known() -> None:
    catalogue = extended({"flavors.yaml": OWN_GPU}).catalogue
    policy = held_to("country:us", "gpu:big")
    book, workload = Book(catalogue=built_in()), wanted(policy, catalogue)
    book.use(catalogue)
    book.decided(IRIS, policy, workload)
    assert any("acme/gpu In big" in text for text in written(book))
    assert written(book) == terms_of(workload)
