"""kopf's way to the cluster is that of the operator's own client."""

from __future__ import annotations

import kopf
import pytest

from beamlit_operator.controllers import drive
from beamlit_operator.controllers.settings import operator_settings


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [
        ("10.0.0.1", "443", "https://10.0.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
    ],
)
async def test_in_a_pod_the_address_of_the_api_server_counts_and_not_its_name(
    monkeypatch: pytest.MonkeyPatch, host: str, port: str, server: str
) -> None:
    def account(**_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(kopf, "login_with_service_account", account)
    found = await drive.connection(None, settings=operator_settings())
    assert found is not None
    assert found.server == server
    assert found.token == "t"
