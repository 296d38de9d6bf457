"""Bad input, strangers, and what the embedded cluster does not do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from beamlit_operator.kube import CONFIG_MAPS, ApiError, HttpClient

from .wire import ask


async def _raw(client: HttpClient, method: str, path: str, body: Any, kind: str) -> Any:
    answer = await ask(client, method, path, body, kind=kind)
    return answer.status, answer.body


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("{", "application/json"),
        ("[]", "application/json"),
        ("null", "application/json"),
        ('{"metadata": 3}', "application/json"),
        ('{"metadata": {"labels": {"a": 1}}}', "application/json"),
        ('{"data": NaN}', "application/json"),
        ("a: [", "application/yaml"),
        ('{"apiVersion": "v2", "kind": "ConfigMap"}', "application/json"),
        ('{"apiVersion": "v1", "kind": "Secret"}', "application/json"),
        ("[" * 100_000, "application/json"),
    ],
)
async def test_a_malformed_body_is_a_bad_request(
    client: HttpClient, namespace: str, body: str, kind: str
) -> None:
    status, answer = await _raw(client, "POST", CONFIG_MAPS.path(namespace), body, kind)
    assert status in (400, 422), answer
    assert answer["kind"] == "Status"


async def test_half_a_surrogate_pair_becomes_the_replacement_character(
    client: HttpClient, namespace: str
) -> None:
    body = '{"metadata": {"name": "x"}, "data": {"a": "\\ud800"}}'
    status, made = await _raw(client, "POST", CONFIG_MAPS.path(namespace), body, "application/json")
    assert (status, made["data"]) == (201, {"a": "\ufffd"})


async def test_a_body_in_an_unknown_format_is_unsupported(
    client: HttpClient, namespace: str
) -> None:
    status, answer = await _raw(client, "POST", CONFIG_MAPS.path(namespace), "x", "text/plain")
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


async def test_a_huge_body_is_too_large(client: HttpClient, namespace: str) -> None:
    body = io.BytesIO(b" " * (4 * 1024 * 1024))
    status, answer = await _raw(
        client, "POST", CONFIG_MAPS.path(namespace), body, "application/json"
    )
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


async def test_a_stranger_is_unauthorized(kubeconfig: Path) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]["server"]
    headers = {"Authorization": "Bearer wrong"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(server + "/api/v1/namespaces", headers=headers, ssl=False) as answer,
    ):
        assert answer.status == 401
        assert (await answer.json())["reason"] == "Unauthorized"


async def test_a_yaml_body_is_read_like_json(client: HttpClient, namespace: str) -> None:
    body = "metadata:\n  name: one\ndata:\n  day: '2020-01-01'\n"
    status, made = await _raw(client, "POST", CONFIG_MAPS.path(namespace), body, "application/yaml")
    assert (status, made["data"]) == (201, {"day": "2020-01-01"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v1/namespaces/default/pods/x/exec", 501),
        ("POST", "/api/v1/namespaces/default/pods/x/portforward", 501),
        ("POST", "/api/v1/namespaces/default/pods/x/attach", 501),
        ("GET", "/api/v1/namespaces/default/services/x/proxy", 501),
        ("GET", "/apis/apps/v1/statefulsets", 404),
        ("GET", "/apis/apps/v1/daemonsets", 404),
        ("GET", "/apis/batch/v1/jobs", 404),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
    ],
)
async def test_what_is_not_supported_says_so(
    client: HttpClient, embedded: bool, method: str, path: str, status: int
) -> None:
    if not embedded:
        pytest.skip("a real cluster supports these")
    with pytest.raises(ApiError) as caught:
        await client.request(method, path, body={})
    assert caught.value.status == status
    if status == 501:
        assert "the embedded cluster does not implement" in caught.value.message
