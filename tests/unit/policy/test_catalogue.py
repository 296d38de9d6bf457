"""The catalogues are whole, consistent, and cost nothing until they are asked."""

import subprocess
import sys
from dataclasses import replace

import pytest

from beamlit_operator.policy.algebra import Value
from beamlit_operator.policy.catalogue import CONTINENTS, Region, built_in
from beamlit_operator.policy.locations import PolicyType, normal, parents, unknown


def test_every_country_of_iso_3166_has_one_of_the_seven_continents() -> None:
    assert len(built_in().continent_by_country) == 249
    assert set(built_in().continent_by_country.values()) == set(CONTINENTS)
    assert all(len(code) == 2 and code.islower() for code in built_in().continent_by_country)
    assert all(built_in().country_names.values())


def test_every_region_lies_in_a_country_and_is_written_in_lower_case() -> None:
    for region in built_in().regions:
        assert built_in().continent_of(region.country), region
        assert region.name == region.name.lower()
        assert built_in().country_of(region.name) == region.country


def test_the_three_clouds_are_there() -> None:
    count = dict.fromkeys(("aws", "gcp", "azure"), 0)
    for region in built_in().regions:
        count[region.cloud] += 1
    assert count["aws"] >= 40
    assert count["gcp"] >= 40
    assert count["azure"] >= 60
    names = [region.name for region in built_in().regions]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("location", "country", "continent"),
    [
        ("us-east-1", "us", "na"),
        ("ap-southeast-2", "au", "oc"),
        ("europe-west6", "ch", "eu"),
        ("northeurope", "ie", "eu"),
        ("me-west1", "il", "as"),
        ("me-west-1", "sa", "as"),
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
    other = Region(cloud="other", name="us-east-1", country="de", place="")
    shared = replace(built_in(), regions=(*built_in().regions, other))
    assert shared.country_of("us-east-1") is None
    assert "us-east-1" not in shared.locations_in("us")


def test_a_cluster_adds_its_own_locations() -> None:
    extended = built_in().with_locations({"Berlin-1": "DE"})
    assert extended.country_of("berlin-1") == "de"
    assert built_in().country_of("berlin-1") is None
    with pytest.raises(ValueError, match="not an ISO 3166-1"):
        built_in().with_locations({"here": "uk"})
    with pytest.raises(ValueError, match="has it in us"):
        built_in().with_locations({"us-east-1": "de"})


def test_the_normal_form_is_lower_case_with_the_catalogues_spelling() -> None:
    assert str(normal("Country", " US ", catalogue=built_in())) == "country:us"
    assert str(normal("cpu", "AMD64", catalogue=built_in())) == "cpu:x86"
    assert str(normal("gpu", "Tesla-T4", catalogue=built_in())) == "gpu:t4"
    assert str(normal("gpu", "RTX4090", catalogue=built_in())) == "gpu:rtx4090"


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
        "import beamlit_operator.policy.placement as p, beamlit_operator.policy.catalogue as c;"
        "assert c.built_in.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
