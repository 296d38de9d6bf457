"""Keys and tokens as people make them, and what the gateway makes of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.integration.authentication.conftest import Scene
from tests.integration.authentication.test_tokens import ready

from beamlit_operator.cli.apikeys import (
    create_command,
    keys_table,
    list_command,
    revoke_command,
    span,
)
from beamlit_operator.cli.cluster import Target
from beamlit_operator.cli.credentials import token_command
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.invoke import invoke_command
from beamlit_operator.kube import MODEL_DEPLOYMENTS, SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_key_is_shown_once_kept_as_a_hash_and_revoked(scene: Scene, capsys) -> None:
    path, other = await ready(scene, "shopped"), await ready(scene, "unshopped")
    target = Target(scene.kubeconfig, "demo")
    only = ("shopped-production",)
    assert await create_command("shop", target, deployments=only, expires="90d") == 0
    assert await create_command("every", target, deployments=(), expires=None) == 0
    shop, every = capsys.readouterr().out.split()
    await scene.until_status(200, path, token=shop)
    await scene.until_status(200, other, token=every)
    assert (await scene.call(other, token=shop))[0] == 403
    kept = str(await scene.admin.get(SECRETS, "beamlit-api-keys", "demo"))
    _, id, secret = shop.split("_", 2)  # the secret may have underscores, too
    assert secret not in kept
    await list_command(target)
    listed = capsys.readouterr().out
    assert "shopped-production" in listed
    assert id in listed
    assert shop not in listed
    with pytest.raises(CommandError, match="already"):
        await create_command("shop", target, deployments=(), expires=None)
    with pytest.raises(CommandError, match="has no key"):
        await revoke_command("shopp", target)
    await revoke_command("shop", target)
    await scene.until_status(401, path, token=shop)
    assert (await scene.call(path, token=every))[0] == 200


async def test_a_token_is_an_accounts_and_invoke_sends_what_it_is_given(
    scene: Scene, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await ready(scene, "invoked")
    target = Target(scene.kubeconfig, "demo")
    await scene.admin.merge_patch(
        MODEL_DEPLOYMENTS,
        "invoked-production",
        {"status": {"url": scene.url + path}},
        "demo",
        subresource="status",
    )

    async def invoke(**given: str) -> int:
        return await invoke_command(
            "invoked", target, environment="production", data="{}", path=None, **given
        )

    monkeypatch.delenv("BEAMLIT_TOKEN", raising=False)
    with pytest.raises(CommandError, match="--service-account"):
        await invoke()
    await scene.permit(await scene.account("typist"), deployments=("invoked-production",))
    await token_command("typist", target, audience="beamlit", seconds=600)
    token = capsys.readouterr().out.strip()
    assert await invoke(token=token) == 0
    assert await invoke(account="typist") == 0
    monkeypatch.setenv("BEAMLIT_TOKEN", token)
    assert await invoke() == 0
    await scene.account("nobody")
    with pytest.raises(CommandError, match="beamlit-consumer"):
        await invoke(account="nobody")
    with pytest.raises(CommandError, match="create serviceaccount absent"):
        await invoke(account="absent")


async def test_lengths_of_time_are_written_in_minutes_hours_and_days() -> None:
    assert [span(text).total_seconds() for text in ("30m", "12h", "90d")] == [1800, 43200, 7776000]
    for text in ("", "0d", "1w", "-1d", "1.5h"):
        with pytest.raises(CommandError, match="90d"):
            span(text)
    assert keys_table([], now=datetime.now(UTC)).row_count == 0
