"""Addresses at which clouds keep credentials, in every way they can be written."""

from __future__ import annotations

import pytest

from beamlit_operator.origins import OriginError, OriginReason
from beamlit_operator.origins.stores.addresses import check_host


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fe80::1",
        "[fe80::a9fe:a9fe]",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:42::42",
        # The same ones, written so that nobody sees it.
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "::ffff:169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_an_address_of_a_clouds_own_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(OriginError, match="link-local") as caught:
        check_host(host)
    assert caught.value.reason is OriginReason.INVALID_REFERENCE
    assert caught.value.stalled


@pytest.mark.parametrize(
    "host",
    [
        "",
        "minio",
        "minio.team.svc",
        "169.254.169.254.example.com",
        "10.0.0.7",
        "127.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "::1",
        "fd12:3456::1",
        "2001:db8::1",
        "64:ff9b::a00:7",
        "3232235777",
    ],
)
def test_other_addresses_and_names_are_not(host: str) -> None:
    check_host(host)
