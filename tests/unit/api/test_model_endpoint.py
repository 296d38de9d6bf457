"""Which addresses of a Hub a Model may name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from beamlit_operator.api.model import HuggingFaceOrigin


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://hub.example.com",
        "http://hub.example.com:8080/",
        "https://artifacts.example.com/api/huggingfaceml/models",
    ],
)
def test_a_hub_may_have_a_port_and_a_path(endpoint: str) -> None:
    assert HuggingFaceOrigin(repo="org/a", endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "hub.example.com",
        "ftp://hub.example.com",
        "https://user:password@hub.example.com",
        "https://hub.example.com?token=a",
        "https://hub.example.com/#a",
        "https://",
    ],
)
def test_an_address_with_credentials_or_a_query_is_none(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        HuggingFaceOrigin(repo="org/a", endpoint=endpoint)
