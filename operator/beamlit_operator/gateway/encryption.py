"""TLS at the gateway: what Envoy is told of the certificate. Pure.

The certificate comes by Envoy's secret discovery from a file that names certificate and key: only
then Envoy watches the folder they are in, and a renewed one counts at once, for new connections,
and ends none (envoyproxy.io, "Secret discovery service", "Key rotation"). Kubernetes swaps the
folder of a mounted Secret whole, so certificate and key never mix.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beamlit_operator.gateway.protos import DownstreamTls, packed
from beamlit_operator.gateway.settings import GatewaySettings

SECRET = "gateway"  # noqa: S105
SECRET_FILE = "tls.json"  # noqa: S105


def secret_file(settings: GatewaySettings) -> Path:
    """Where Envoy finds what :func:`secret_document` says."""
    assert settings.runtime_dir is not None
    return settings.runtime_dir / SECRET_FILE


def secret_document(settings: GatewaySettings) -> str:
    """The file that names certificate and key."""
    folder = str(Path(settings.tls_certificate).parent)
    certificate = {
        "certificate_chain": {"filename": settings.tls_certificate},
        "private_key": {"filename": settings.tls_key},
        "watched_directory": {"path": folder},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    resource = {"@type": kind, "name": SECRET, "tls_certificate": certificate}
    return json.dumps({"resources": [resource]}, indent=1) + "\n"


def transport_socket(settings: GatewaySettings) -> dict[str, Any]:
    """Of the listener with TLS: 1.2 or later, HTTP/2 where the caller can."""
    source = {
        "path_config_source": {"path": str(secret_file(settings))},
        "resource_api_version": "V3",
    }
    context = DownstreamTls(
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [{"name": SECRET, "sds_config": source}],
        }
    )
    return {"name": "tls", "typed_config": packed(context)}
