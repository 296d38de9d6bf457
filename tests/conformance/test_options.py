"""Query parameters: what makes no sense is refused in Kubernetes' words, never ignored."""

from __future__ import annotations

import asyncio

import pytest

from beamlit_operator.kube import CONFIG_MAPS, HttpClient

from .objects import config_map
from .wire import APPLY, MERGE, ask


@pytest.mark.parametrize(
    ("method", "name", "query", "kind", "options", "field", "reason"),
    [
        ("POST", "", "dryRun=Some", "", "CreateOptions", "dryRun", "NotSupported"),
        ("PUT", "/one", "dryRun=Some", "", "UpdateOptions", "dryRun", "NotSupported"),
        ("DELETE", "/one", "dryRun=Some", "", "DeleteOptions", "dryRun", "NotSupported"),
        ("POST", "", "fieldValidation=No", "", "CreateOptions", "fieldValidation", "NotSupported"),
        ("POST", "", "fieldManager=a%07", "", "CreateOptions", "fieldManager", "Invalid"),
        (
            "PATCH",
            "/one",
            f"fieldManager={'m' * 129}",
            MERGE,
            "PatchOptions",
            "fieldManager",
            "TooLong",
        ),
        ("PATCH", "/one", "", APPLY, "PatchOptions", "fieldManager", "Required"),
        ("PATCH", "/one", "force=true", MERGE, "PatchOptions", "force", "Forbidden"),
        ("PATCH", "/one", "force=false", MERGE, "PatchOptions", "force", "Forbidden"),
        (
            "DELETE",
            "/one",
            "propagationPolicy=Nope",
            "",
            "DeleteOptions",
            "propagationPolicy",
            "NotSupported",
        ),
    ],
)
async def test_a_bad_option_of_a_write_is_invalid(
    client: HttpClient,
    namespace: str,
    method: str,
    name: str,
    query: str,
    kind: str,
    options: str,
    field: str,
    reason: str,
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    path = f"{CONFIG_MAPS.path(namespace)}{name}?{query}"
    body = None if method == "DELETE" else config_map("one")
    answer = await ask(client, method, path, body, kind=kind or "application/json")
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.message.startswith(f'{options}.meta.k8s.io "" is invalid: {field}: ')
    assert (field, f"FieldValue{reason}") in answer.causes


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("resourceVersionMatch=Exact", 422, "is forbidden unless resourceVersion is provided"),
        ("resourceVersion=1&resourceVersionMatch=No", 422, 'Unsupported value: "No"'),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, 'forbidden for resourceVersion "0"'),
        (
            "resourceVersion=0&resourceVersionMatch=NotOlderThan&sendInitialEvents=true",
            422,
            "sendInitialEvents is forbidden for list",
        ),
        ("watch=1&sendInitialEvents=true", 422, "requires setting resourceVersionMatch"),
        (
            "watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
            422,
            "is forbidden for watch unless sendInitialEvents is provided",
        ),
        ("resourceVersion=abc", 400, 'Invalid value: "abc"'),
        ("watch=1&resourceVersion=abc", 500, 'Invalid value: "abc"'),
        ("resourceVersion=999999999999", 504, "Too large resource version"),
    ],
)
async def test_a_bad_option_of_a_list_or_watch_is_refused(
    client: HttpClient, namespace: str, query: str, status: int, text: str
) -> None:
    answer = await ask(client, "GET", f"{CONFIG_MAPS.path(namespace)}?{query}")
    assert (answer.status, answer.body["code"]) == (status, status)
    assert text in answer.message
    if status == 504:
        assert answer.causes == [("", "ResourceVersionTooLarge")]


@pytest.mark.parametrize(("version", "status"), [("abc", 500), ("999999999999", 504), ("0", 200)])
async def test_a_get_looks_at_the_version_too(
    client: HttpClient, namespace: str, version: str, status: int
) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    path = f"{CONFIG_MAPS.path(namespace, 'one')}?resourceVersion={version}"
    assert (await ask(client, "GET", path)).status == status


async def test_a_watch_from_the_future_is_silent(client: HttpClient, namespace: str) -> None:
    path = f"{CONFIG_MAPS.path(namespace)}?watch=1&resourceVersion=999999999999&timeoutSeconds=1"
    watch = asyncio.create_task(ask(client, "GET", path))
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    answer = await watch
    assert (answer.status, answer.text) == (200, "")
