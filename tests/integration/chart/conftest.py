"""An API server on which the chart is installed over and over, by Helm's engine.

What is installed was accepted: the API server knows the built-in types' schemas and validates.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.chart import CHART, RELEASE, SYSTEM, Rendered, Values, api_server, stored

from beamlit_operator.kube import CUSTOM_RESOURCE_DEFINITIONS, HttpClient, Json, connect


@pytest.fixture(scope="session")
def helm():
    return pytest.importorskip(
        "helm_sdkpy", reason="helm-sdkpy, Helm's engine as a package, needs Python 3.12 or later"
    )


@pytest.fixture(scope="session")
def api(helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with api_server(tmp_path_factory.mktemp("chart-api")) as kubeconfig:
        yield kubeconfig


class Installer:
    """Installs the chart, tells what was rendered, and removes it again."""

    def __init__(self, helm, kubeconfig: Path, client: HttpClient) -> None:
        self.helm = helm
        self.client = client
        self._kubeconfig = str(kubeconfig)

    async def install(self, values: Values | None = None, *, namespace: str = SYSTEM) -> Rendered:
        configuration = self.helm.Configuration(namespace, self._kubeconfig)
        try:
            await self.helm.Install(configuration).run(
                RELEASE,
                str(CHART),
                values or {},
                create_namespace=True,
                wait=False,
                disable_openapi_validation=False,
            )
            rendered = await stored(self.client, namespace)
            # What can be installed can be upgraded at once, to the same.
            await self.helm.Upgrade(configuration).run(
                RELEASE, str(CHART), values or {}, wait=False, disable_openapi_validation=False
            )
            return rendered
        finally:
            # Nothing was stored of what could not be rendered.
            with contextlib.suppress(self.helm.ReleaseNotFoundError):
                await self.helm.Uninstall(configuration).run(RELEASE, wait=False)


@pytest.fixture
async def installer(helm, api: Path) -> AsyncIterator[Installer]:
    async with await connect(api) as client:
        for definition in (
            foreign("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
            foreign("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            foreign("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
            foreign("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
        ):
            await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition, field_manager="test")
        yield Installer(helm, api, client)


def foreign(group: str, version: str, kind: str, plural: str) -> Json:
    """A kind of somebody else's, of which only the name is known here."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
