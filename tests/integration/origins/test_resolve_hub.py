"""Resolving Hub references through the real library, against a server that speaks its API."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.support.hub import HubServer

from beamlit_operator.origins import HubRef, OriginError, OriginReason, resolve

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 200_000, "README.md": b"# hello"}


def ref(hub: HubServer, repo: str = "org/model", **more: Any) -> HubRef:
    return HubRef(repo, endpoint=hub.endpoint, **more)


async def failure(reference: HubRef, token: str | None = None) -> OriginError:
    with pytest.raises(OriginError) as caught:
        await resolve(reference, {"token": token} if token else {})
    assert token is None or token not in str(caught.value)
    return caught.value


async def test_a_branch_becomes_its_commit_with_every_file(hub: HubServer) -> None:
    sha = hub.add("org/model", FILES)
    found = await resolve(ref(hub), {})
    assert found.revision == sha
    assert {file.path: file.size for file in found.files} == {
        path: len(content) for path, content in FILES.items()
    }
    assert found.bytes == sum(map(len, FILES.values()))


async def test_tags_and_commits_resolve_too(hub: HubServer) -> None:
    old = hub.add("org/model", FILES, branch="v1")
    hub.add("org/model", FILES | {"new.txt": b"new"})
    assert (await resolve(ref(hub, revision="v1"), {})).revision == old
    assert (await resolve(ref(hub, revision=old), {})).revision == old


async def test_patterns_choose_the_files(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    chosen = ref(hub, allow_patterns=("*.json", "*.safetensors"), ignore_patterns=("config*",))
    assert [file.path for file in (await resolve(chosen, {})).files] == ["model.safetensors"]


async def test_patterns_that_match_nothing_are_reported(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    error = await failure(ref(hub, allow_patterns=("*.gguf",)))
    assert error.reason is OriginReason.NO_OBJECTS
    assert "allowPatterns" in error.message


async def test_a_hub_that_gives_no_sizes_is_asked_for_the_tree(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    hub.without_sizes = True
    found = await resolve(ref(hub), {})
    assert found.bytes == sum(map(len, FILES.values()))


async def test_a_missing_repository_is_not_told_from_a_hidden_one(hub: HubServer) -> None:
    hub.add("org/private", FILES)
    hub.repos["org/private"].private = True
    hub.tokens.add("hf_stranger")
    for repo in ("org/missing", "org/private"):
        for token in (None, "hf_stranger"):
            error = await failure(ref(hub, repo), token)
            assert error.reason is OriginReason.REPO_NOT_FOUND_OR_NO_ACCESS
            assert f"hf://{repo}" in error.message


async def test_a_private_repository_opens_to_its_token(hub: HubServer) -> None:
    sha = hub.add("org/private", FILES)
    hub.tokens.add("hf_mine")
    hub.repos["org/private"].private = True
    hub.repos["org/private"].granted.add("hf_mine")
    assert (await resolve(ref(hub, "org/private"), {"token": "hf_mine"})).revision == sha


@pytest.mark.parametrize("token", [None, "hf_known"])
async def test_a_gated_repository_says_where_to_ask(hub: HubServer, token: str | None) -> None:
    hub.add("org/gated", FILES)
    hub.tokens.add("hf_known")
    hub.repos["org/gated"].gated = True
    error = await failure(ref(hub, "org/gated"), token)
    assert error.reason is OriginReason.GATED
    assert f"{hub.endpoint}/org/gated" in error.message


async def test_a_token_the_hub_does_not_know_is_invalid(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    error = await failure(ref(hub), "hf_wrong")
    assert error.reason is OriginReason.TOKEN_INVALID
    assert error.stalled


async def test_an_unknown_revision_is_named(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    error = await failure(ref(hub, revision="v9"))
    assert error.reason is OriginReason.REVISION_UNKNOWN
    assert "'v9'" in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=55'}, 55.0), ({}, 60.0)],
)
async def test_the_hubs_own_delay_is_kept(
    hub: HubServer, headers: dict[str, str], seconds: float
) -> None:
    hub.add("org/model", FILES)
    hub.storm, hub.storm_headers = 1, headers
    error = await failure(ref(hub))
    assert error.reason is OriginReason.RATE_LIMITED
    assert (error.stalled, error.retry_after_seconds) == (False, seconds)


async def test_a_broken_hub_is_unreachable(hub: HubServer) -> None:
    hub.add("org/model", FILES)
    hub.storm, hub.storm_status = 1, 502
    assert (await failure(ref(hub))).reason is OriginReason.UNREACHABLE


async def test_a_hub_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(HubRef("org/model", endpoint=f"http://127.0.0.1:{port}"))
    assert error.reason is OriginReason.UNREACHABLE


async def test_a_server_that_is_no_hub_is_unreachable(answering: Any) -> None:
    async with answering(200, "<html>welcome</html>") as endpoint:
        error = await failure(HubRef("org/model", endpoint=endpoint))
    assert error.reason is OriginReason.UNREACHABLE
    assert "does not answer like a Hub" in error.message


async def test_the_token_of_the_process_is_never_used(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_operator")
    sha = hub.add("org/model", FILES)
    assert (await resolve(ref(hub), {})).revision == sha


async def test_names_that_leave_the_directory_are_refused(hub: HubServer) -> None:
    hub.add("org/model", {"../outside": b"x"})
    assert (await failure(ref(hub))).reason is OriginReason.UNSAFE_PATH
