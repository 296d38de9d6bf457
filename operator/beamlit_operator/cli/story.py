"""The acts of the demo: apply, policy, a cold start, warm requests, and nothing again."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
from rich.table import Table
from rich.text import Text

from beamlit_operator.api import Model, ModelDeployment, labels
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.cli.applying import apply_folder
from beamlit_operator.cli.calling import Json, TryAgainError, compare, infer
from beamlit_operator.cli.coldstart import ANSWERED, REQUEST_IN, ColdStart, timeline, watched
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.explain import EFFECT_STYLES
from beamlit_operator.cli.invoke import with_path
from beamlit_operator.cli.listing import READY_STYLES, phase_text
from beamlit_operator.cli.scene import Scene
from beamlit_operator.cli.stage import Stage
from beamlit_operator.kube import KubeClient

WORKSPACE = "default"
MODEL = "iris"
DEPLOYMENT = "iris-production"
SPECIES = ("setosa", "versicolor", "virginica")
"""The classes of the iris data set, in the order in which the model numbers them."""

READY_WITHIN = 30.0
ANSWER_WITHIN = 120.0
ATTEMPTS = 10
RETRY_AFTER = 0.2
WARM_CALLS = 50
REST_WITHIN = 90.0
"""Seconds. Stable window 6 s and grace 30 s, then the pod has to end."""


class Story:
    """Tells it, on one cluster."""

    def __init__(self, stage: Stage, scene: Scene, client: KubeClient, *, samples: Path) -> None:
        self._stage = stage
        self._scene = scene
        self._client = client
        self._samples = samples
        self._request = (samples.parent / "requests" / f"{MODEL}.json").read_bytes()

    async def tell(self, kubeconfig: Path) -> None:
        """All acts, in order.

        Raises:
            CommandError: something is not as it should be; says what.
        """
        await self._apply(kubeconfig)
        self._policy()
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN)
        ) as session:
            start = await self._cold(session)
            await self._warm(session, start)
        await self._rest(time.monotonic())

    async def _apply(self, kubeconfig: Path) -> None:
        self._stage.section("Apply the quickstart, the files one would apply to a real cluster")
        with self._stage.step("applying") as step:
            step.done = "applied"
            command, lines = await apply_folder(self._samples, kubeconfig, workspace=WORKSPACE)
        self._stage.show(Text(f"$ {command}", style="bold"), *(Text(line) for line in lines))
        with self._stage.step("waiting for the conditions") as step:
            step.done = "model and deployment ready"
            await self._scene.until(
                self._scene.is_ready, what="model and deployment ready", within=READY_WITHIN
            )
        self._stage.show(self._conditions(self._scene.model, self._scene.deployment))

    def _conditions(self, *items: Model | ModelDeployment | None) -> Table:
        table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for item in items:
            if item is None:
                continue
            phase = phase_text(item.status.phase)
            table.add_row(Text(f"{item.kind} {item.metadata.name}", style="bold"), phase)
            for each in item.status.conditions:
                style = READY_STYLES[each.status] if each.type == READY else "yellow"
                state = Text(f"  {each.type}={each.status}", style=style)
                table.add_row(state, Text(f"{each.reason}: {each.message}"))
        return table

    def _policy(self) -> None:
        self._stage.section("Policy: production is US only, this deployment asks for Australia")
        deployment = self._scene.deployment
        policy = deployment.status.effective_policy if deployment else None
        location = policy.location if policy else None
        if location is None or location.allowed != ("country:us",):
            raise CommandError(
                "the deployment should be held to country:us, but status.effectivePolicy says"
                f" {location.to_wire() if location else 'nothing'}"
            )
        table = _table("POLICY", "ATTACHED BY", "EFFECT")
        table.add_column("BECAUSE", overflow="fold")
        for row in location.policies:
            level = f"{row.level}, mandatory" if row.mandatory else row.level
            effect = Text(row.effect, style=EFFECT_STYLES[row.effect])
            table.add_row(row.name, level, effect, Text(row.because))
        allowed = Text("It may run in: ").append(", ".join(location.allowed), style="bold green")
        self._stage.show(table, allowed)

    async def _cold(self, session: aiohttp.ClientSession) -> ColdStart:
        self._stage.section("A request while nothing runs: held, woken, answered")
        scene = self._scene
        await scene.until(scene.is_at_rest, what="nothing runs yet", within=READY_WITHIN)
        url = self._url()
        self._stage.show(Text("replicas 0, pods 0"), Text(f"POST {url}", style="bold"))
        with self._stage.step("waiting for the answer") as step:
            step.done = "answered"
            async with watched(
                self._client,
                workspace=WORKSPACE,
                deployment=DEPLOYMENT,
                on_step=lambda seen: step.say(f"waiting for the answer: {seen}"),
            ) as start:
                reply = await self._call_cold(session, url, start)
                # The last news of the pod may still be on its way.
                await scene.until(
                    lambda: "model server ready" in start.seen, what="pod ready", within=5
                )
        self._stage.show(timeline(start), self._predictions(reply), self._place(start))
        return start

    async def _call_cold(self, session: aiohttp.ClientSession, url: str, start: ColdStart) -> Json:
        """The request that wakes it, again while the gateway has not heard of it yet.

        It hears of a deployment when everybody else does: milliseconds after it became ready.
        """
        for attempt in range(ATTEMPTS):
            start.seen.clear()
            start.mark(REQUEST_IN)
            try:
                reply = await infer(session, url, self._request)
            except TryAgainError:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(RETRY_AFTER)
            else:
                start.mark(ANSWERED)
                return reply
        raise AssertionError("the loop returns or raises")

    def _predictions(self, reply: Json) -> Text:
        flowers = json.loads(self._request)["inputs"][0]["data"]
        try:
            classes = [SPECIES[int(each)] for each in reply["outputs"][0]["data"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CommandError(f"the model's answer is not a prediction: {reply}") from error
        text = Text("Prediction  ")
        for flower, species in zip(flowers, classes, strict=True):
            text.append(f"{flower} ").append(species, style="bold green").append("   ")
        return text

    def _place(self, start: ColdStart) -> Text:
        node = str((start.pod or {}).get("spec", {}).get("nodeName"))
        region = self._scene.region_of(node)
        if not region.startswith("us-"):
            raise CommandError(f"policy allows the US only, but the pod ran on {node} in {region}")
        text = Text("It ran on   ").append(node, style="bold")
        return text.append(" in ").append(region, style="bold green").append(", as policy demands")

    async def _warm(self, session: aiohttp.ClientSession, start: ColdStart) -> None:
        self._stage.section("Warm requests")
        urls = (self._url(), self._pod_url(start))
        with self._stage.step(f"{WARM_CALLS} requests by each way, taking turns"):
            through, direct = await compare(session, urls, self._request, calls=WARM_CALLS)
        table = _table("WAY")
        for column in ("MEDIAN", "P95"):
            table.add_column(column, justify="right")
        for way, each in (("through the gateway", through), ("to the pod itself", direct)):
            table.add_row(way, _ms(each.median), _ms(each.p95))
        table.add_row("added by the gateway", Text(_ms(through.median - direct.median), "bold"), "")
        self._stage.show(table)

    async def _rest(self, last_request: float) -> None:
        scene = self._scene
        config = scene.deployment.spec.serverless_config if scene.deployment else None
        window = config.stable_window if config else None
        self._stage.section(
            f"No more requests: after an idle window of {window or '60s'} and 30 s of grace, zero"
        )
        with self._stage.step("waiting for zero") as step:
            step.done = "zero replicas, zero pods"

            def at_rest() -> bool:
                pods = len(scene.pods)
                idle = time.monotonic() - last_request
                step.say(f"{idle:.0f} s idle, {scene.wanted} replicas wanted, {pods} pods")
                return scene.is_at_rest()

            await scene.until(at_rest, what="back to zero replicas", within=REST_WITHIN)
        self._stage.show(self._conditions(scene.deployment))

    def _url(self) -> str:
        deployment = self._scene.deployment
        if deployment is None or not deployment.status.url:
            ready = find(deployment.status.conditions, READY) if deployment else None
            raise CommandError(f"the deployment has no endpoint: {ready.message if ready else ''}")
        return with_path(deployment.status.url, f"/v2/models/{MODEL}/infer")

    def _pod_url(self, start: ColdStart) -> str:
        pod = next(
            (p for p in self._scene.pods if labels.REVISION in p["metadata"].get("labels", {})),
            start.pod or {},
        )
        ports = [
            port["containerPort"]
            for container in pod.get("spec", {}).get("containers", ())
            for port in container.get("ports", ())
        ]
        address = pod.get("status", {}).get("podIP")
        if not address or not ports:
            raise CommandError(f"the pod has no address or no port\n{self._scene.summary()}")
        return f"http://{address}:{ports[0]}/v2/models/{MODEL}/infer"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
