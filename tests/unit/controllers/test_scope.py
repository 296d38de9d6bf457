"""Which workspace integration is used: the table of `controllers.scope`."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from beamlit_operator.api import Model
from beamlit_operator.controllers.scope import Integration, choose, integration, normalised
from beamlit_operator.controllers.stores import reference, store_kind
from beamlit_operator.origins import HubRef

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples" / "origins"

HUB = "https://huggingface.co"
MIRROR = "https://hub.example.com/mirror"


@pytest.mark.parametrize(
    ("held", "endpoint", "name", "said"),
    [
        (Integration("hub"), HUB, "hub", ""),
        (Integration("hub", "acme/*"), HUB, "hub", ""),
        (Integration("hub", "acme/*", MIRROR), MIRROR + "/", "hub", ""),
        (Integration("hub", "acme/*", MIRROR), HUB, None, "not sent to https://huggingface.co"),
        (Integration("hub"), MIRROR, None, "not sent to https://hub.example.com/mirror"),
        (Integration("hub", "other/*"), HUB, None, "beamlit.com/allowed (other/*)"),
        (Integration("hub", "other/*", MIRROR), MIRROR, None, "does not cover acme/chat"),
    ],
)
def test_an_integration_serves_what_it_covers_at_the_endpoint_it_belongs_to(
    held: Integration, endpoint: str, name: str | None, said: str
) -> None:
    choice = choose([held], "acme/chat", endpoint=endpoint, usual=HUB)
    assert choice.name == name
    assert said in choice.withheld
    assert bool(choice.withheld) == (name is None)


def test_an_integration_without_an_endpoint_belongs_to_the_operators_own_hub() -> None:
    held = [Integration("hub")]
    assert choose(held, "a/b", endpoint=MIRROR, usual=MIRROR).name == "hub"
    assert choose(held, "a/b", endpoint=HUB, usual=MIRROR).name is None


def test_the_first_by_name_that_fits_is_used_and_the_nearest_miss_is_told() -> None:
    held = [
        Integration("z"),
        Integration("y"),
        Integration("c", endpoint=MIRROR),
        Integration("b", "other/*"),
        Integration("a", endpoint=MIRROR),
    ]
    assert choose(held, "acme/chat", endpoint=HUB, usual=HUB).name == "y"
    withheld = choose(held[2:], "acme/chat", endpoint=HUB, usual=HUB).withheld
    assert withheld.startswith("Secret b is an integration")
    assert choose([], "acme/chat", endpoint=HUB, usual=HUB).withheld == ""


def test_where_credentials_only_sign_the_endpoint_does_not_count() -> None:
    held = [Integration("s3", endpoint=MIRROR)]
    assert choose(held, "bucket", endpoint=None, usual=HUB).name == "s3"


def test_an_endpoint_that_cannot_be_read_agrees_with_nothing() -> None:
    secret = {"metadata": {"name": "hub"}, "data": {"endpoint": "%%%"}}
    found = integration(secret)
    assert choose([found], "a/b", endpoint=HUB, usual=HUB).name is None


def test_what_a_secret_says_is_read_without_its_token() -> None:
    secret = {
        "metadata": {"name": "hub", "annotations": {"beamlit.com/allowed": "acme/*"}},
        "data": {"token": "c2VjcmV0", "endpoint": base64.b64encode(b" HTTPS://Hub:443/ ").decode()},
    }
    assert integration(secret) == Integration("hub", "acme/*", "https://hub")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://Hub.example.com/", "https://hub.example.com:443", True),
        ("http://hub:80", "http://hub", True),
        ("https://hub/a", "https://hub/b", False),
        ("https://hub", "http://hub", False),
        ("https://hub:8443", "https://hub", False),
        ("https://hub@evil.example", "https://hub", False),
        ("http://[::1]:80/", "http://[::1]", True),
    ],
)
def test_one_place_has_one_writing(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


def test_the_integration_of_the_sample_opens_its_model_and_nothing_at_the_public_hub() -> None:
    secret, _, body = yaml.safe_load_all((SAMPLES / "hub-mirror.yaml").read_text())
    secret["data"] = {
        key: base64.b64encode(value.encode()).decode()
        for key, value in secret["stringData"].items()
    }
    origin = Model.model_validate(body).spec.origin
    assert origin is not None
    ref, found = reference(origin), store_kind(origin)
    assert isinstance(ref, HubRef)
    assert found is not None
    kind, part = found
    held, subject = [integration(secret)], kind.subject(part)
    assert choose(held, subject, endpoint=ref.endpoint, usual=HUB).name == "company-hub"
    assert choose(held, subject, endpoint=HUB, usual=HUB).name is None
