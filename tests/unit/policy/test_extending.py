"""A cluster's own catalogue: what is added, what is refused, and that nothing breaks the rest."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from beamlit_operator.policy import built_in
from beamlit_operator.policy.extending import extended

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text(encoding="utf-8")


def regions(**clouds: Any) -> dict[str, str]:
    return {"regions.yaml": yaml.safe_dump({"clouds": clouds})}


def flavors(**document: Any) -> dict[str, str]:
    return {"flavors.yaml": yaml.safe_dump(document)}


def test_nothing_given_is_the_built_in_catalogue_itself() -> None:
    assert extended({}).catalogue is built_in()


def test_regions_zones_and_flavors_are_added() -> None:
    added = extended(
        {
            **regions(
                onprem={
                    "zonePattern": "-rack[0-9]",
                    "regions": "Berlin-1 de Berlin\nparis-1,PAR1 FR Paris",
                    "zones": "tirana berlin-1 al Tirana",
                }
            ),
            **flavors(
                devices={"acme": {"resource": "acme.com/npu"}},
                gpu={
                    "npu1": {"device": "acme", "labels": {"acme.com/model": ["one"]}},
                    "t4": {"aliases": ["turing"], "labels": {"acme.com/model": ["t4"]}},
                },
                cpu={"x86": {"arch": ["x86_64"]}},
            ),
        }
    )
    known = added.catalogue
    assert (added.problems, added.overridden) == ((), ())
    assert known.country_of("berlin-1") == "de"
    assert known.label_values("berlin-1") == ("Berlin-1", "berlin-1")
    assert known.zone_region("berlin-1-rack7") == "berlin-1"
    assert known.location_name("par1") == "paris-1"
    assert known.foreign_zones["berlin-1"] == ("tirana",)
    assert known.gpus["npu1"].resource == "acme.com/npu"
    assert known.flavor_name("gpu", "turing") == "t4"
    assert known.gpus["t4"].labels["acme.com/model"] == ("t4",)
    assert "Tesla-T4" in known.gpus["t4"].labels["nvidia.com/gpu.product"]
    assert known.cpus["x86"].architectures == ("amd64", "x86_64")
    assert built_in().country_of("berlin-1") is None
    assert "turing" not in {alias for _, alias in built_in().flavor_aliases}


def test_a_built_in_region_counts_where_the_cluster_says_and_that_is_told() -> None:
    added = extended(regions(mine={"regions": "us-east-1 ca here\nme-west-1 sa on AWS"}))
    assert added.catalogue.country_of("us-east-1") == "ca"
    assert added.catalogue.country_of("me-west-1") == "sa"
    assert added.problems == ()
    moved, settled = added.overridden
    assert "us-east-1 counts as in ca" in moved
    assert "us (aws) and us (lambda)" in moved
    assert "il (lambda) and sa (aws)" in settled
    assert built_in().country_of("us-east-1") == "us"


def test_the_same_country_said_again_is_no_change() -> None:
    added = extended(regions(mine={"regions": "us-east-1 us here"}))
    assert (added.problems, added.overridden) == ((), ())


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"regions.yaml": "clouds: ["}, "regions.yaml: is not YAML in line 2"),
        ({"regions.yaml": "- a"}, "regions.yaml: must be a mapping, not list"),
        ({"region.yaml": ""}, "region.yaml: is not known: use regions.yaml or flavors.yaml"),
        ({"regions.yaml": "cloud: {}"}, "regions.yaml: cloud: is not known: use clouds"),
        (regions(x={"regions": ["a"]}), "regions.yaml: x: regions: must be text"),
        (regions(x={"regions": "here"}), "'here': a region is written NAME COUNTRY PLACE"),
        (regions(x={"regions": "here uk London"}), "'uk' is not an ISO 3166-1 alpha-2"),
        (regions(x={"regions": "he/re gb London"}), "'he/re' cannot be the value"),
        (regions(x={"regions": "here gb A\nhere de B"}), "listed before, in gb"),
        (regions(x={"zones": "z nowhere gb A"}), "region nowhere is not in the catalogue"),
        (regions(x={"zonePattern": "("}), "zonePattern is no regular expression"),
        (flavors(gpu={"new": {"labels": {}}}), "gpu: new: device must be one of amd, gaudi"),
        (flavors(gpu={"t4": {"device": "amd"}}), "t4: it is a nvidia.com/gpu already"),
        (flavors(gpu={"t4": {"label": {}}}), "t4: label: is not known: use device"),
        (flavors(gpu={"t4": {"aliases": ["l4"]}}), "alias l4 means another gpu flavor"),
        (flavors(gpu={"t4": {"aliases": ["nvidia-l4"]}}), "alias nvidia-l4 means another"),
        (
            flavors(gpu={"t4": {"labels": {"nvidia.com/gpu.product": ["NVIDIA-L4"]}}}),
            "nvidia.com/gpu.product=NVIDIA-L4 means l4 already",
        ),
        (flavors(gpu={"t4": {"labels": {"a/b": ["x y"]}}}), "'x y' cannot be the value"),
        (flavors(gpu={"t4": {"labels": {"a/b": "x"}}}), "must be a list of texts"),
        (flavors(gpu={"n": {"device": "amd", "variantOf": "t4"}}), "no flavor of that device"),
        (flavors(devices={"nvidia": {"resource": "a.b/c"}}), "it is nvidia.com/gpu already"),
        (flavors(devices={"new": {"resource": "gpu"}}), "must be a device resource"),
        (flavors(cpu={"vax": {}}), "arch must list values of kubernetes.io/arch"),
    ],
)
def test_a_bad_entry_is_told_and_the_rest_is_used(texts: dict[str, str], complaint: str) -> None:
    good = {**regions(onprem={"regions": "berlin-1 de Berlin"}), **texts}
    added = extended(good)
    (problem,) = added.problems
    assert complaint in problem
    assert ("regions.yaml" in texts) or added.catalogue.country_of("berlin-1") == "de"
    beside = yaml.safe_load(texts.get("regions.yaml", "{}")) if "YAML" not in complaint else {}
    if isinstance(beside, dict) and "clouds" in beside:
        beside["clouds"]["onprem"] = {"regions": "berlin-1 de Berlin"}
        both = extended({"regions.yaml": yaml.safe_dump(beside)})
        assert both.catalogue.country_of("berlin-1") == "de"
        assert len(both.problems) == 1


def test_the_example_of_the_documentation_is_a_good_one() -> None:
    (block,) = re.findall(r"```yaml\n(apiVersion: v1\nkind: ConfigMap\n.*?)```", PAGE, re.S)
    added = extended(yaml.safe_load(block)["data"])
    assert added.problems == ()
    assert len(added.overridden) == 1
    assert added.catalogue.zone_region("berlin-1-rack3") == "berlin-1"
    assert added.catalogue.country_of("us-east-1-new-1a") == "do"
    assert added.catalogue.variant_of("gpu", "a100-80gb") == "a100"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["clouds", "regions", "zones", "gpu", "cpu", "devices", "device", "labels", "t4"]
            )
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(data=JUNK)
def test_no_document_whatever_makes_it_fail_or_lose_what_is_built_in(data: Any) -> None:
    for key in ("regions.yaml", "flavors.yaml"):
        added = extended({key: yaml.safe_dump(data)})
        assert added.catalogue.country_of("us-east-2") in ("us", None)
        assert set(built_in().gpus) <= set(added.catalogue.gpus)
