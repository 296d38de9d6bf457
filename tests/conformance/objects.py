"""Manifests the suite uses."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def config_map(name: str, **data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": data,
    }


def deployment(name: str, namespace: str | None = None, **spec: Any) -> Json:
    labels = {"app": name}
    metadata: Json = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    container = {
        "name": "main",
        "image": "example.com/none:1",
        "env": [{"name": "A", "value": "1"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            **spec,
        },
    }


def widget(name: str, namespace: str, /, **spec: Any) -> Json:
    return {
        "apiVersion": "conformance.beamlit.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"size": 1, **spec},
    }
