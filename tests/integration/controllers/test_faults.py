"""What may go wrong around the operator, and that it goes on by itself."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.integration.controllers.conftest import DEADLINE, TEAM, Lab
from tests.integration.controllers.test_operator import (
    ALL,
    DEPLOYMENT,
    ENVIRONMENT,
    MODEL,
    POLICY,
    SECRET,
)

from beamlit_operator.kube import POLICIES, ApiError


async def test_an_api_server_that_goes_and_comes_back_is_survived(lab: Lab) -> None:
    await lab.start_operator()
    await lab.apply(ALL)
    await lab.until_ready("Idle")
    await lab.restart_server()
    await lab.client.delete(POLICIES, "where", TEAM)
    await lab.until_ready("PolicyNotFound")
    await lab.apply(POLICY)
    await lab.until_ready("Idle")


async def test_a_second_operator_waits_and_takes_over_at_once_when_the_first_ends(
    lab: Lab,
) -> None:
    first = await lab.process("first")
    await lab.apply(ALL)
    await lab.until_holder("first")
    second = await lab.process("second")
    assert await lab.holder() == "first"
    first.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        assert await first.wait() == 0
    await lab.until_holder("second")
    await lab.apply(DEPLOYMENT.replace("spec: {", "spec: {enabled: false, "))
    await lab.until_ready("Deactivated")
    second.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        assert await second.wait() == 0


async def test_an_operator_that_is_killed_is_continued_by_the_next(lab: Lab) -> None:
    killed = await lab.process("killed", "--no-leader-election")
    await lab.apply("---".join((POLICY, ENVIRONMENT, MODEL, DEPLOYMENT)))
    await lab.until_ready("SecretNotFound")
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    await lab.start_operator()
    await lab.apply(SECRET)
    await lab.until_ready("Idle")


async def test_errors_of_the_api_server_are_retried(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await lab.start_operator()
    client = operator.client
    apply, failures = client.apply, iter([500, 429, 0, 409, 503])

    async def flaky(*args: object, **kwargs: object) -> object:
        status = next(failures, None)
        if status is not None:
            raise ApiError(status, "Injected", "injected", retry_after=0.1)
        return await apply(*args, **kwargs)

    monkeypatch.setattr(client, "apply", flaky)
    await lab.apply(ALL)
    await lab.until_ready("Idle")
