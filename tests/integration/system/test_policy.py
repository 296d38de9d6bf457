"""Policies hold at placement and while requests are served."""

import asyncio
import time

from tests.support.flakystore import FlakyStore

from .conftest import ready, served

US, AU = (
    {"type": "location", "locations": [{"type": "country", "name": name}]} for name in ("us", "au")
)


async def governed(workspace, **deployment) -> None:
    await workspace.apply("Policy", "where", US)
    await workspace.quickstart(**deployment)
    await workspace.apply(
        "Environment", "production", {"policies": [{"name": "where", "mandatory": True}]}
    )
    await workspace.until(
        lambda md: (
            (md["status"].get("effectivePolicy") or {}).get("location", {}).get("allowed")
            == ["country:us"]
        )
    )


async def test_a_mandatory_policy_wins_over_the_deployments_own_and_says_so(workspace):
    await workspace.apply("Policy", "australia", AU)
    await governed(workspace, policies=[{"name": "australia"}])
    status, body = await workspace.call()
    assert (status, body["node"]) == (200, "us-east")
    deployment = await workspace.until_ready("Serving")
    rows = deployment["status"]["effectivePolicy"]["location"]["policies"]
    assert {(row["name"], row["effect"]) for row in rows} == {
        ("where", "enforced"),
        ("australia", "overridden"),
    }
    types = {c["type"]: c["status"] for c in deployment["status"]["conditions"]}
    assert types["PolicyOverridden"] == "True"
    assert "Stalled" not in types


async def test_after_a_policy_moves_no_forbidden_node_answers_for_long(workspace):
    await governed(workspace)
    assert (await workspace.call())[1]["node"] == "us-east"
    await workspace.apply("Policy", "where", AU)
    changed = last_forbidden = time.monotonic()
    answered_from: set[str] = set()
    while "au-southeast" not in answered_from or time.monotonic() - last_forbidden < 3:
        assert time.monotonic() - changed < 30, f"{answered_from} {last_forbidden - changed:.1f} s"
        status, body = await workspace.call()
        assert status == 200, body
        answered_from.add(body["node"])
        if body["node"] == "us-east":
            last_forbidden = time.monotonic()


async def test_loosening_disturbs_no_running_pod(workspace):
    await governed(workspace)
    assert (await workspace.call())[0] == 200
    (before,) = await workspace.pods()
    both = {"type": "location", "locations": [*US["locations"], *AU["locations"]]}
    await workspace.apply("Policy", "where", both)
    await workspace.until(
        lambda md: len(md["status"]["effectivePolicy"]["location"]["allowed"]) == 2
    )
    for _ in range(20):
        assert (await workspace.call())[0] == 200
        (after,) = await workspace.pods()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        await asyncio.sleep(0.05)


async def test_no_node_within_the_policy_is_said_with_what_exists(workspace):
    await governed(workspace)
    await workspace.apply(
        "Policy", "where", {"type": "location", "locations": [{"type": "country", "name": "br"}]}
    )
    nowhere = await workspace.until_ready("NoPlacement")
    message = ready(nowhere)["message"]
    assert "country:br" in message
    assert "us-east-1" in message
    status, body = await workspace.call()
    assert (status, body["error"]["reason"]) == (503, "NoPlacement")
    await workspace.apply("Policy", "where", US)
    await workspace.until(lambda md: ready(md)["status"] == "True")
    await served(workspace)


async def test_a_policy_that_goes_missing_places_nothing_new(workspace):
    await governed(workspace)
    await workspace.delete("Policy", "where")
    await workspace.until_ready("PolicyNotFound")
    status, _ = await workspace.call()
    assert status == 503
    assert await workspace.pods() == []
    await workspace.apply("Policy", "where", US)
    await workspace.until(lambda md: ready(md)["status"] == "True")
    assert (await served(workspace))["node"] == "us-east"


async def test_a_policy_tightened_while_the_origin_is_away_starts_nothing_outside(workspace):
    with FlakyStore(workspace.stack.store) as store:
        await workspace.apply("Policy", "where", US)
        await workspace.apply(
            "Environment", "production", {"policies": [{"name": "where", "mandatory": True}]}
        )
        await workspace.secret()
        await workspace.model(store=store.endpoint)
        await workspace.deployment()
        await workspace.until_ready("Idle")
        # The account is locked out, and a change makes the operator look again.
        store.refuse = [403] * 10_000
        await workspace.model(store=store.endpoint, region="us-west-2")
        await workspace.until_ready("OriginNotReady")
        await workspace.apply("Policy", "where", AU)
        outdated = await workspace.until_ready("PlacementOutdated")
        assert "policies were tightened" in ready(outdated)["message"]
        status, body = await workspace.call()
        assert (status, body["error"]["reason"]) == (503, "PlacementOutdated")
        assert await workspace.pods() == []
        store.refuse = []
        await workspace.model(store=store.endpoint)
        await workspace.until_ready("Idle")
        assert (await served(workspace))["node"] == "au-southeast"


async def test_a_mandatory_policy_that_is_deleted_drives_nobody_to_where_the_deployment_wanted(
    workspace,
):
    await workspace.apply("Policy", "australia", AU)
    await governed(workspace, policies=[{"name": "australia"}])
    assert (await workspace.call())[1]["node"] == "us-east"
    (before,) = await workspace.pods()
    await workspace.delete("Policy", "where")
    await workspace.until_ready("PolicyNotFound")
    deployment = await workspace.until(
        lambda md: "allowed" not in md["status"]["effectivePolicy"]["location"]
    )
    rows = deployment["status"]["effectivePolicy"]["location"]["policies"]
    assert {row["name"]: row["effect"] for row in rows} == {
        "where": "missing",
        "australia": "overridden",
    }
    for _ in range(20):
        status, body = await workspace.call()
        assert (status, body["node"]) == (200, "us-east")
        (after,) = await workspace.pods()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        await asyncio.sleep(0.05)
