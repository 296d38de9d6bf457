"""Parts put together by hand are what the library would have written."""

from __future__ import annotations

import pytest

from beamlit_operator.gateway.protos import Matcher, RouteConfiguration, VirtualHost
from beamlit_operator.gateway.wire import Field, MapField, serialized


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 3_000_000])
def test_a_repeated_field_of_any_size_reads_back(size: int) -> None:
    host = Field(RouteConfiguration, "virtual_hosts")
    hosts = [VirtualHost(name="a" * size), VirtualHost(name="b")]
    joined = serialized(RouteConfiguration(name="x")) + b"".join(host(serialized(h)) for h in hosts)
    assert RouteConfiguration.FromString(joined) == RouteConfiguration(
        name="x", virtual_hosts=hosts
    )


def test_a_map_reads_back() -> None:
    entry = MapField(Matcher.MatcherTree.MatchMap, "map")
    values = {"": Matcher.OnMatch(), "/demo/\u00e4": Matcher.OnMatch(action={"name": "n" * 300})}
    joined = b"".join(entry(key, serialized(value)) for key, value in values.items())
    read = Matcher.MatcherTree.MatchMap.FromString(joined)
    assert {key: read.map[key] for key in read.map} == values
