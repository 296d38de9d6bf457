"""The catalogues are whole, consistent, and cost nothing until they are asked."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from beamlit_operator.policy.algebra import Value
from beamlit_operator.policy.catalogue import CONTINENTS, Place
from beamlit_operator.policy.locations import PolicyType, normal, parents, unknown
from beamlit_operator.policy.reading import built_in


def test_every_country_of_iso_3166_has_one_of_the_seven_continents() -> None:
    assert len(built_in().continent_by_country) == 249
    assert set(built_in().continent_by_country.values()) == set(CONTINENTS)
    assert all(len(code) == 2 and code.islower() for code in built_in().continent_by_country)
    assert all(built_in().country_names.values())


def test_every_region_and_zone_lies_in_a_country_and_is_written_as_a_label_can_be() -> None:
    for place in built_in().places:
        assert built_in().continent_of(place.country), place
        assert place.name == place.spelled[0].lower()
        assert place.place
        assert all(re.fullmatch(r"[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", s) for s in place.spelled)
        for spelled in place.spelled:
            assert built_in().location_of_label(spelled) == place.name
        if place.region is not None:
            assert built_in().zone_region(place.name) == place.region


def test_the_nine_clouds_are_there() -> None:
    least = {
        "aws": 45, "gcp": 40, "azure": 60, "oci": 50, "scaleway": 4, "ovhcloud": 20,
        "hetzner": 6, "coreweave": 30, "lambda": 15,
    }  # fmt: skip
    count = Counter(region.cloud for region in built_in().regions)
    assert set(count) == set(least)
    assert all(count[cloud] >= least[cloud] for cloud in least)
    named = [(place.cloud, place.name) for place in built_in().places]
    assert len(named) == len(set(named))


def test_the_names_that_clouds_use_in_two_countries_are_those_that_the_data_names() -> None:
    # A new one must be decided on: it takes the country from nodes that had one.
    assert built_in().ambiguous == {"me-west-1": ("il", "sa")}
    assert built_in().country_of("me-west-1") is None


def test_no_spelling_means_two_places() -> None:
    meant: dict[str, set[str]] = {}
    for place in built_in().places:
        for spelled in (*place.spelled, place.name):
            meant.setdefault(spelled.lower(), set()).add(place.name)
    assert {spelled: names for spelled, names in meant.items() if len(names) > 1} == {}


@pytest.mark.parametrize(
    ("zone", "region", "country"),
    [
        ("us-east-1a", "us-east-1", "us"),
        ("europe-west3-b", "europe-west3", "de"),
        ("us-central1-ai1a", "us-central1", "us"),
        ("eastus-1", "eastus", "us"),
        ("uk-london-1-ad-2", "uk-london-1", "gb"),
        ("phx-ad-1", "us-phoenix-1", "us"),
        ("fr-par-2", "fr-par", "fr"),
        ("fsn1-dc14", "fsn1", "de"),
        ("us-east-04a", "us-east-04", "us"),
    ],
)
def test_a_zone_is_part_of_its_region(zone: str, region: str, country: str) -> None:
    parent = parents(PolicyType.LOCATION, built_in())
    assert parent(Value("location", zone)) == Value("location", region)
    assert built_in().country_of(zone) == country


def test_a_local_zone_abroad_is_part_of_its_country_and_not_of_its_region() -> None:
    parent = parents(PolicyType.LOCATION, built_in())
    assert parent(Value("location", "us-east-1-bue-1a")) == Value("country", "ar")
    assert "us-east-1-bue-1a" in built_in().foreign_zones["us-east-1"]
    for region, zones in built_in().foreign_zones.items():
        assert all(built_in().country_of(zone) != built_in().country_of(region) for zone in zones)


def test_similar_names_of_different_clouds_are_kept_apart() -> None:
    assert built_in().country_of("eu-central-1") == "de"  # AWS
    assert built_in().country_of("eu-central") is None  # a network zone of Hetzner, no region
    assert built_in().country_of("europe-central-1") == "de"  # Lambda
    assert built_in().country_of("europe-central2") == "pl"  # Google Cloud
    assert built_in().country_of("asia-south-1") == built_in().country_of("asia-south1") == "in"
    assert built_in().country_of("us-east-04") == "us"


def test_labels_are_spelled_as_each_cloud_spells_them() -> None:
    assert built_in().label_values("gra11") == ("GRA11", "gra11")
    assert built_in().label_values("us-ashburn-1") == ("iad", "us-ashburn-1")
    assert built_in().label_values("us-east-1") == ("us-east-1",)
    assert built_in().label_values("berlin-1") == ("BERLIN-1", "berlin-1")
    assert built_in().location_of_label("Gra11") is None


def test_every_flavor_of_the_design_is_there_with_its_device() -> None:
    device = {
        "nvidia.com/gpu": "t4 p4 p100 v100 a2 a10 a10g a16 a30 a40 l4 l40 l40s a100 a100-40gb "
        "a100-80gb h100 h100-sxm h100-pcie h100-nvl h200 h800 gh200 b100 b200 b300 gb200 gb300 "
        "rtx-a6000 rtx-6000-ada rtx-pro-6000",
        "amd.com/gpu": "mi210 mi250 mi300x mi300a mi325x mi350x mi355x",
        "habana.ai/gaudi": "gaudi gaudi2 gaudi3",
        "google.com/tpu": "tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu-v7",
        "aws.amazon.com/neuron": "inferentia inferentia2 trainium trainium2",
    }
    for resource, names in device.items():
        for name in names.split():
            assert built_in().gpus[name].resource == resource, name


def test_a_label_value_means_one_flavor_only() -> None:
    meant: dict[tuple[str, str], str] = {}
    for gpu in built_in().gpus.values():
        for label, values in gpu.labels.items():
            for value in values:
                assert len(value) <= 63, value
                assert meant.setdefault((label, value), gpu.name) == gpu.name, (label, value)


def test_an_alias_means_one_flavor_and_is_no_flavors_name() -> None:
    for (kind, alias), name in built_in().flavor_aliases.items():
        flavors = built_in().cpus if kind == "cpu" else built_in().gpus
        assert name in flavors
        assert alias == alias.lower()
        assert alias not in flavors


def test_a_type_contains_its_variants() -> None:
    parent = parents(PolicyType.FLAVOR, built_in())
    assert parent(Value("gpu", "a100-80gb")) == Value("gpu", "a100")
    assert parent(Value("gpu", "a100")) is None
    assert built_in().variants("h100") == ("h100", "h100-nvl", "h100-pcie", "h100-sxm")


@pytest.mark.parametrize(
    ("location", "country", "continent"),
    [
        ("us-east-1", "us", "na"),
        ("ap-southeast-2", "au", "oc"),
        ("europe-west6", "ch", "eu"),
        ("northeurope", "ie", "eu"),
        ("me-west1", "il", "as"),
        ("norwayeast", "no", "eu"),
        ("africa-south1", "za", "af"),
        ("sa-east-1", "br", "sa"),
        ("chinanorth3", "cn", "as"),
    ],
)
def test_a_region_is_in_its_country_and_continent(
    location: str, country: str, continent: str
) -> None:
    parent = parents(PolicyType.LOCATION, built_in())
    assert parent(Value("location", location)) == Value("country", country)
    assert parent(Value("country", country)) == Value("continent", continent)
    assert location in built_in().locations_in(country)
    assert country in built_in().countries_in(continent)


def test_a_name_that_clouds_use_in_two_countries_proves_no_country() -> None:
    other = Place(cloud="other", name="us-east-1", country="de", place="")
    shared = replace(built_in(), places=(*built_in().places, other))
    assert shared.country_of("us-east-1") is None
    assert "us-east-1" not in shared.locations_in("us")


def test_the_normal_form_is_lower_case_with_the_catalogues_spelling() -> None:
    assert str(normal("Country", " US ", catalogue=built_in())) == "country:us"
    assert str(normal("cpu", "AMD64", catalogue=built_in())) == "cpu:x86"
    assert str(normal("gpu", "Tesla-T4", catalogue=built_in())) == "gpu:t4"
    assert str(normal("gpu", "A100-80", catalogue=built_in())) == "gpu:a100-80gb"
    assert str(normal("gpu", "RTX4090", catalogue=built_in())) == "gpu:rtx4090"
    assert str(normal("location", "IAD", catalogue=built_in())) == "location:us-ashburn-1"


def test_names_that_do_not_exist_are_told() -> None:
    values = [Value("country", "uk"), Value("continent", "america"), Value("country", "no")]
    assert unknown(values, catalogue=built_in()) == [
        "continent 'america' does not exist: use one of af an as eu na oc sa",
        "country 'uk' does not exist: use an ISO 3166-1 alpha-2 code (the United Kingdom is gb)",
    ]
    own = [Value("location", "berlin-1"), Value("gpu", "rtx4090")]
    assert unknown(own, catalogue=built_in()) == []


def test_the_data_is_not_read_on_import() -> None:
    code = (
        "import beamlit_operator.policy.placement as p, beamlit_operator.policy.reading as c;"
        "assert c.built_in.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
