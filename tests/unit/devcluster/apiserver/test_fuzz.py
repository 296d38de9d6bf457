"""Random requests: whatever is sent, the answer is a Status or an object, never a 500."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from yarl import URL

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import CONFIG_MAPS, NAMESPACES, Json

REQUESTS = int(os.environ.get("BEAMLIT_FUZZ_REQUESTS", "1500"))

_PLURALS = [
    "api/v1/namespaces/default/pods",
    "api/v1/namespaces/default/services",
    "api/v1/namespaces/default/secrets",
    "api/v1/namespaces/default/configmaps",
    "api/v1/namespaces/default/events",
    "api/v1/nodes",
    "api/v1/namespaces",
    "apis/apps/v1/namespaces/default/deployments",
    "apis/apps/v1/namespaces/default/replicasets",
    "apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    "apis/coordination.k8s.io/v1/namespaces/default/leases",
    "apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
    "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "apis/authentication.k8s.io/v1/tokenreviews",
    "apis/rbac.authorization.k8s.io/v1/clusterroles",
]
# fmt: off
_KEYS = [
    "metadata", "spec", "status", "data", "name", "labels", "containers", "image", "ports",
    "template", "selector", "matchLabels", "replicas", "strategy", "type", "rules", "names",
    "versions", "schema", "openAPIV3Schema", "properties", "finalizers", "ownerReferences", "uid",
    "resources", "limits", "cpu", "env", "value", "items", "webhooks", "group", "scope", "kind",
    "plural", "stringData", "addressType", "endpoints", "apiVersion", "managedFields",
    "annotations", "conversion", "default", "x-kubernetes-validations", "rule", "volumes",
    "readinessProbe", "httpGet", "port", "rollingUpdate", "$patch",
]
# fmt: on
_NAMES = ["a", "b", "kube-system", "A", "x" * 300, "..", "%2e%2e", "a%2Fb", "%C3%BC", "%00", "-"]
_TYPES = [
    "application/json",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
]
_VALUES: list[Any] = [None, True, 0, -1, 1.5, 2**70, "", "a", "1Gi", "\u0000", "é", "default"]
_QUERIES = [
    "",
    "?dryRun=All",
    "?fieldManager=me&force=true",
    "?fieldManager=me",
    "?limit=1",
    "?limit=x",
    "?continue=abc",
    "?labelSelector=a%3D",
    "?labelSelector=%28",
    "?fieldSelector=metadata.name%3Da",
    "?fieldSelector=x",
    "?watch=1&timeoutSeconds=1&resourceVersion=99999999",
    "?resourceVersion=-1",
    "?propagationPolicy=Foreground",
    "?gracePeriodSeconds=x",
    "?fieldValidation=Strict&fieldManager=me",
]


def _value(source: random.Random, depth: int) -> Any:
    kind = source.random()
    if depth <= 0 or kind < 0.3:
        return source.choice(_VALUES)
    if kind < 0.45:
        return [_value(source, depth - 1) for _ in range(source.randrange(3))]
    return {source.choice(_KEYS): _value(source, depth - 1) for _ in range(source.randrange(5))}


_SEEDS: list[Any] = [
    {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    {
        "metadata": {"name": "a"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": []}]},
            },
        },
    },
    {"metadata": {"name": "b"}, "data": {"k": "dg=="}, "stringData": {"x": "y"}},
    {"metadata": {"name": "b", "finalizers": ["a/b"]}, "spec": {"ports": [{"port": 1}]}},
    [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}],
    [{"op": "replace", "path": "/spec", "value": None}],
]


def _mutated(source: random.Random, value: Any) -> Any:
    if source.random() < 0.12:
        return _value(source, 3)
    if isinstance(value, dict):
        found = {key: _mutated(source, entry) for key, entry in value.items()}
        if source.random() < 0.2:
            found[source.choice(_KEYS)] = _value(source, 2)
        return found
    if isinstance(value, list):
        return [_mutated(source, entry) for entry in value]
    return value


def _body(source: random.Random) -> bytes:
    if source.random() < 0.05:
        return source.randbytes(source.randrange(60))
    value = _mutated(source, source.choice(_SEEDS))
    return json.dumps(value).encode()


async def _bystanders(server: ApiServer) -> list[Json]:
    """What nobody sends a request to, in a namespace of its own."""
    items = (await server.client.list(CONFIG_MAPS, "kept")).items
    return [item for item in items if item["metadata"]["name"].startswith("bystander")]


async def test_no_request_makes_the_server_fail_or_loses_an_object(tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    await server.start()
    await server.client.create(NAMESPACES, {"metadata": {"name": "kept"}})
    for number in range(50):
        body = {"metadata": {"name": f"bystander-{number}"}, "data": {"number": str(number)}}
        await server.client.create(CONFIG_MAPS, body, "kept")
    kept = await _bystanders(server)
    assert len(kept) == 50
    token = yaml.safe_load(server.kubeconfig(tmp_path / "config").read_text())["users"][0]["user"]
    context = ssl.create_default_context(cafile=str(tmp_path / "pki" / "ca.crt"))
    headers = {"Authorization": f"Bearer {token['token']}"}
    seed = int(os.environ.get("BEAMLIT_FUZZ_SEED", "20"))
    source = random.Random(seed)
    seen: dict[int, int] = {}
    async with aiohttp.ClientSession(
        server.url, headers=headers, connector=aiohttp.TCPConnector(ssl=context)
    ) as session:
        for number in range(REQUESTS):
            method = source.choice(["GET", "POST", "POST", "PUT", "PATCH", "PATCH", "DELETE"])
            path = "/" + source.choice(_PLURALS)
            if method not in ("POST",) or source.random() < 0.1:
                path += "/" + source.choice(_NAMES[:2] if source.random() < 0.8 else _NAMES)
                path += source.choice(["", "", "", "/status", "/scale", "/log", "/binding"])
            path += source.choice(_QUERIES)
            kind, body = source.choice(_TYPES), _body(source)
            async with session.request(
                method,
                URL(path, encoded=True),
                data=body if method != "GET" else None,
                headers={"Content-Type": kind},
            ) as answer:
                text = await asyncio.wait_for(answer.read(), 60)
                seen[answer.status] = seen.get(answer.status, 0) + 1
                # Kubernetes itself answers some bad requests with a 500; that has no reason.
                broken = b'"InternalError"' in text
                assert not broken, (seed, number, method, path, kind, body, text)
    assert seen.get(200, 0) + seen.get(201, 0) > REQUESTS // 100, seen
    assert {"default", "kube-system"} <= {
        key.name for key in server._store.collection("namespaces").objects
    }
    assert await _bystanders(server) == kept
    await server.stop()
    again = ApiServer(tmp_path)
    await again.start()
    assert await _bystanders(again) == kept
    await again.stop()
