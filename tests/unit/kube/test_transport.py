"""Which proxy leads to an API server, as the environment says it once, when the client is made."""

from __future__ import annotations

import pytest

from beamlit_operator.kube.transport import proxy_for

SERVER = "https://api.example.com:6443"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"http_proxy": "http://proxy:3128"}, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "example.com"}, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "other.com"}, "http://proxy:3128"),
        ({"https_proxy": "https://proxy:3128"}, None),
    ],
)
def test_the_environments_proxy_is_used_for_https_unless_the_host_is_excluded(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(SERVER) == (proxy, None)


def test_a_proxys_login_travels_as_its_header_and_not_in_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:pass%20word@proxy:3128")
    assert proxy_for(SERVER) == (
        "http://proxy:3128",
        {"Proxy-Authorization": "Basic bWU6cGFzcyB3b3Jk"},
    )
