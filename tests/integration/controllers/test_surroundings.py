"""Surroundings that are not as they should be: told where people look, and recovered from."""

from __future__ import annotations

import asyncio
import copy
import logging
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from tests.integration.controllers.conftest import TEAM, Lab
from tests.support.stack import free_port

from beamlit_operator.api.crd import KINDS, crd
from beamlit_operator.cli.doctor.findings import Finding, Level, run
from beamlit_operator.cli.doctor.gatherer import Gatherer
from beamlit_operator.cli.doctor.report import CHECKS
from beamlit_operator.controllers.admission import certificates
from beamlit_operator.controllers.admission.configuration import (
    CONFIGURATIONS,
    by_url,
    configuration,
)
from beamlit_operator.controllers.admission.keeper import OwnCertificates
from beamlit_operator.controllers.operator import Operator
from beamlit_operator.controllers.options import Options
from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    ApiError,
    Json,
    Resource,
    connect,
)

MANIFESTS = """
apiVersion: beamlit.com/v1alpha1
kind: Environment
metadata: {name: production}
---
apiVersion: beamlit.com/v1alpha1
kind: Model
metadata: {name: iris}
spec: {origin: {s3: {uri: "s3://models/iris"}}}
---
apiVersion: beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: iris}
spec: {model: iris, runtime: {image: "python:3"}}
"""
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


def metric(operator: Operator, name: str, **labels: str) -> float:
    registry: CollectorRegistry = operator.metrics.registry
    return registry.get_sample_value(name, labels) or 0.0


def definition(kind: str) -> tuple[Json, dict[str, Any]]:
    """A definition of ours, and its properties."""
    made = copy.deepcopy(crd(next(each for each in KINDS if each.name == kind)))
    schema = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return made, schema["properties"]


async def define(lab: Lab, body: Json) -> None:
    """Replaces a definition, as an upgrade or a rollback of the chart would."""
    name = body["metadata"]["name"]
    live = await lab.client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    await lab.client.update(CUSTOM_RESOURCE_DEFINITIONS, {**live, "spec": body["spec"]})


async def events_about_the_system(lab: Lab) -> list[str]:
    found = await lab.client.list(EVENTS, "beamlit-system")
    return [e["message"] for e in found.items if e["reason"] == "DefinitionDiffers"]


async def test_an_older_definition_is_told_of_works_and_is_caught_up_with(lab: Lab) -> None:
    older, parts = definition("ModelDeployment")
    del parts["status"]["properties"]["effectivePolicy"]
    await define(lab, older)
    operator = await lab.start_operator(leader_election=False)
    await lab.apply(MANIFESTS)
    found = await lab.until_ready("Idle")
    assert "effectivePolicy" not in found["status"]
    differs = {"kind": "ModelDeployment", "cluster_is": "older"}
    assert metric(operator, "beamlit_definition_differences", **differs) == 1
    (told,) = await events_about_the_system(lab)
    assert "lacks `status.effectivePolicy`" in told
    # What the API server drops is not written over and over.
    await lab.settle()
    before = operator.writer.writes
    await lab.apply(MANIFESTS)
    await lab.settle()
    assert operator.writer.writes - before <= 2
    await define(lab, definition("ModelDeployment")[0])

    async def caught_up() -> bool:
        live = await lab.get(MODEL_DEPLOYMENTS, "iris")
        return live is not None and "effectivePolicy" in live["status"]

    await lab.until(caught_up, "the status is whole", show=MODEL_DEPLOYMENTS, name="iris")
    assert metric(operator, "beamlit_definition_differences", **differs) == 0


async def test_a_newer_definition_is_told_of_and_its_fields_are_kept(lab: Lab) -> None:
    newer, parts = definition("ModelDeployment")
    parts["spec"]["properties"]["brain"] = {
        "type": "object",
        "properties": {"cells": {"type": "integer"}},
    }
    await define(lab, newer)
    operator = await lab.start_operator(leader_election=False)
    await lab.apply(MANIFESTS.replace("{model: iris,", "{model: iris, brain: {cells: 3},"))
    found = await lab.until_ready("Idle")
    assert found["spec"]["brain"] == {"cells": 3}
    differs = {"kind": "ModelDeployment", "cluster_is": "newer"}
    assert metric(operator, "beamlit_definition_differences", **differs) == 1
    (told,) = await events_about_the_system(lab)
    assert "is newer than the operator: `spec.brain`" in told


async def test_a_namespace_that_ends_is_left_alone(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    operator = await lab.start_operator(leader_election=False)
    for number in range(8):
        await lab.apply(MANIFESTS.replace("iris", f"m{number}"))
    await lab.until_ready("Idle", "m7")
    await lab.settle()
    errors = metric(operator, "beamlit_reconciles_total", kind="ModelDeployment", result="error")
    caplog.clear()
    await lab.client.delete(NAMESPACES, TEAM)

    async def empty() -> bool:
        return not (await lab.client.list(MODEL_DEPLOYMENTS, TEAM)).items

    await lab.until(empty, "the deployments are gone")
    await lab.until(lambda: not operator.indexes.deployments, "the operator saw it")
    await lab.settle()
    now = metric(operator, "beamlit_reconciles_total", kind="ModelDeployment", result="error")
    assert now == errors
    assert any("left alone: " in record.getMessage() for record in caplog.records)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_quota_on_workloads_is_told_in_the_api_servers_words_and_recovered_from(
    lab: Lab,
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": TEAM},
        "spec": {"hard": {"count/deployments.apps": "0"}},
    }
    await lab.client.create(QUOTAS, quota, TEAM)
    await lab.start_operator(leader_election=False)
    await lab.apply(MANIFESTS)
    found = await lab.until_ready("ApplyFailed")
    (ready,) = [c for c in found["status"]["conditions"] if c["type"] == "Ready"]
    assert "exceeded quota: none" in ready["message"]
    assert "count/deployments.apps=1" in ready["message"]

    async def announced() -> bool:
        return "ApplyFailed" in await lab.events("iris")

    await lab.until(announced, "an Event tells it")
    await lab.client.delete(QUOTAS, "none", TEAM)
    await lab.until_ready("Idle")


async def test_a_webhook_that_the_api_server_cannot_reach_is_found(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a NetworkPolicy: the operator listens, and the API server's calls get nowhere."""
    monkeypatch.setattr(OwnCertificates, "interval", 0.2)
    listen = f"127.0.0.1:{free_port()}"
    nowhere = f"127.0.0.1:{free_port()}"
    operator = await lab.start_operator(webhook_listen=listen, leader_election=False)
    await lab.client.apply(CONFIGURATIONS, configuration(by_url(nowhere)), field_manager="x")
    await lab.apply(MANIFESTS)
    await lab.until_ready("Idle")
    # What the alert BeamlitWebhookNotAsked compares.
    assert metric(operator, "beamlit_spec_changes_total", kind="ModelDeployment") > 0
    assert not list(_samples(operator, "beamlit_admission_reviews_total"))
    assert await webhook_level(lab) is Level.PROBLEM
    assert not [e for e in (await lab.client.list(MODEL_DEPLOYMENTS)).items if "doctor" in str(e)]
    # It is let through again.
    await lab.client.apply(CONFIGURATIONS, configuration(by_url(listen)), field_manager="x")

    async def well() -> bool:
        return await webhook_level(lab) is Level.OK

    await lab.until(well, "the webhook is asked")
    assert list(_samples(operator, "beamlit_admission_reviews_total"))


@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
async def test_a_webhook_whose_packets_are_dropped_delays_people_and_is_found(
    lab: Lab, policy: str
) -> None:
    """As behind a NetworkPolicy that drops: no answer ever comes, and no refusal either."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        body = configuration(by_url(f"127.0.0.1:{silent.getsockname()[1]}"), failure_policy=policy)
        assert body["webhooks"][0]["timeoutSeconds"] <= 5
        body["webhooks"][0]["timeoutSeconds"] = 1
        await lab.client.apply(CONFIGURATIONS, body, field_manager="x")
        began = asyncio.get_running_loop().time()
        if policy == "Ignore":
            await lab.apply(MANIFESTS)
            await lab.start_operator(leader_election=False)
            await lab.until_ready("Idle")
        else:
            with pytest.raises(ApiError, match="failed calling webhook") as caught:
                await lab.apply(MANIFESTS)
            assert caught.value.status == 500
        assert asyncio.get_running_loop().time() - began > 1
        (finding,) = await webhook_findings(lab)
        assert finding.level is Level.PROBLEM
        assert "NetworkPolicy" in finding.fix
        # Deleting is what webhooks must never be in the way of for long.
        await lab.client.delete(CONFIGURATIONS, body["metadata"]["name"])
    await lab.apply(MANIFESTS)


async def webhook_level(lab: Lab) -> Level:
    return (await webhook_findings(lab))[0].level


async def webhook_findings(lab: Lab) -> Sequence[Finding]:
    async with await connect(lab.kubeconfig) as client:
        picture = await Gatherer(client, workspace=None).picture()
    return next(r for r in run(CHECKS, picture) if r.check == "webhook").findings


def _samples(operator: Operator, name: str) -> Any:
    for family in operator.metrics.registry.collect():
        yield from (sample for sample in family.samples if sample.name == name)


async def test_a_certificate_that_nears_its_end_is_told_and_renewed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    shift = [timedelta(days=-70)]
    client = await connect(lab.kubeconfig)
    monkeypatch.setattr(OwnCertificates, "interval", 0.2)
    options = Options(
        kubeconfig=str(lab.kubeconfig),
        listen="",
        identity="test",
        leader_election=False,
        webhook_listen=f"127.0.0.1:{free_port()}",
    )
    # Made as of 70 days ago: 20 days are left of the 90, less than the third that calls for a new
    # one as soon as the clock is right.
    operator = Operator(
        client,
        options,
        look=lab.store.look,
        inspect=None,
        clock=lambda: datetime.now(UTC) + shift[0],
    )
    async with client:
        running = asyncio.create_task(operator.run())
        try:
            await lab.until(lambda: not operator.missing, "the operator is ready")
            ends = metric(operator, "beamlit_webhook_certificate_end_seconds")
            left = datetime.fromtimestamp(ends, UTC) - now
            assert timedelta(days=19) < left < timedelta(days=21)
            shift[0] = timedelta()
            await lab.until(
                lambda: (
                    metric(operator, "beamlit_webhook_certificate_end_seconds")
                    > (now + certificates.CERTIFICATE_LIFE - timedelta(days=1)).timestamp()
                ),
                "the certificate is renewed",
            )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_clock_that_differs_is_measured(
    lab: Lab, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({}, headers={"Date": "Mon, 01 Jan 2024 00:00:00 GMT"})

    app = web.Application()
    app.router.add_get("/version", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    from kubernetes.aio import client as k8s

    from beamlit_operator.kube import HttpClient

    try:
        async with HttpClient(k8s.ApiClient(k8s.Configuration(f"http://127.0.0.1:{port}"))) as away:
            await (await away.request("GET", "/version")).read()
            wrong = datetime.now(UTC) - datetime(2024, 1, 1, tzinfo=UTC)
            assert away.clock_difference == pytest.approx(wrong.total_seconds(), abs=5)
    finally:
        await runner.cleanup()
    operator = await lab.start_operator(leader_election=False)
    assert abs(metric(operator, "beamlit_clock_ahead_seconds")) < 5
    assert "the clock here" not in caplog.text
    client = operator.connection
    assert isinstance(client, HttpClient)
    client.clock_difference = -120.0
    client._looked_at_clock = float("inf")
    await operator.listings.audit()
    assert "120 s behind the API server's" in caplog.text
    assert metric(operator, "beamlit_clock_ahead_seconds") == -120.0


async def test_readiness_names_what_is_missing_while_the_api_server_is_away(lab: Lab) -> None:
    """A follower of an API server that goes away stays alive and ready; and so it is told."""
    operator = await lab.start_operator(leader_election=False)
    await lab.apply(MANIFESTS)
    await lab.until_ready("Idle")
    port = int(lab.server.url.rpartition(":")[2])
    await lab.server.stop()
    try:
        with pytest.raises(ApiError):
            await operator.connection.list(NAMESPACES)
        assert operator.missing == ""
    finally:
        from beamlit_operator.devcluster.apiserver import ApiServer

        lab.server = ApiServer(data_dir=lab.data_dir)
        await lab.server.start(port=port)
    await lab.client.merge_patch(MODEL_DEPLOYMENTS, "iris", {"spec": {"enabled": False}}, TEAM)
    await lab.until_ready("Deactivated")
