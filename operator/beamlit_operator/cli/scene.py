"""What the demo watches: one deployment and all that belongs to it, as the cluster has it now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from beamlit_operator.api import Condition, Model, ModelDeployment, labels
from beamlit_operator.api.conditions import READY, find
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import (
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    MODELS,
    NODES,
    PODS,
    Json,
    KubeClient,
    ObjectKey,
    Reflector,
)


class Scene:
    """The objects around one ModelDeployment."""

    def __init__(self, client: KubeClient, *, workspace: str, deployment: str) -> None:
        self._workspace = workspace
        self._deployment = deployment
        self._models = Reflector(client, MODELS, namespace=workspace)
        self._deployments = Reflector(client, MODEL_DEPLOYMENTS, namespace=workspace)
        selector = f"{labels.MODEL_DEPLOYMENT}={deployment}"
        self._workloads = Reflector(
            client, DEPLOYMENTS, namespace=workspace, label_selector=selector
        )
        self._pods = Reflector(client, PODS, namespace=workspace, label_selector=selector)
        self._nodes = Reflector(client, NODES)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Scene]:
        """Keeps everything current inside the block."""
        reflectors = (self._models, self._deployments, self._workloads, self._pods, self._nodes)
        tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
        try:
            for reflector in reflectors:
                await reflector.wait_synced()
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def deployment(self) -> ModelDeployment | None:
        """The ModelDeployment, if it exists."""
        raw = self._deployments.get(ObjectKey(self._workspace, self._deployment))
        return None if raw is None else ModelDeployment.model_validate(raw)

    @property
    def model(self) -> Model | None:
        """Its Model, if both exist."""
        deployment = self.deployment
        if deployment is None:
            return None
        raw = self._models.get(ObjectKey(self._workspace, deployment.spec.model))
        return None if raw is None else Model.model_validate(raw)

    @property
    def pods(self) -> list[Json]:
        """Its pods, ending ones included."""
        return list(self._pods.values())

    @property
    def wanted(self) -> int:
        """Replicas that its workloads ask for."""
        return sum(each.get("spec", {}).get("replicas", 0) for each in self._workloads.values())

    @property
    def nodes(self) -> list[Json]:
        """The nodes, by name."""
        return sorted(self._nodes.values(), key=lambda node: str(node["metadata"]["name"]))

    def region_of(self, node: str) -> str:
        """The region that a node's label names."""
        raw = self._nodes.get(ObjectKey("", node))
        found = (raw or {}).get("metadata", {}).get("labels", {}).get(labels.NODE_REGION)
        return str(found or "unknown")

    def is_ready(self) -> bool:
        """Whether model and deployment both say that they are."""
        model, deployment = self.model, self.deployment
        return (
            model is not None
            and deployment is not None
            and _is_true(model.status.conditions)
            and _is_true(deployment.status.conditions)
        )

    def is_at_rest(self) -> bool:
        """Whether nothing of it runs, and it says so."""
        deployment = self.deployment
        return (
            self.wanted == 0
            and not self.pods
            and deployment is not None
            and deployment.status.phase == "Idle"
        )

    async def until(self, condition: Callable[[], bool], *, what: str, within: float) -> None:
        """Waits until the condition holds.

        Raises:
            CommandError: it did not within that many seconds; says how things stood.
        """
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise CommandError(f"{what}: not within {within:g} s\n{self.summary()}")
            await asyncio.sleep(0.02)

    def summary(self) -> str:
        """How things stand, for a message about what went wrong."""
        lines = [f"  {self.wanted} replicas wanted, {len(self.pods)} pods"]
        for item in (self.model, self.deployment):
            ready = find(item.status.conditions, READY) if item else None
            if item is not None:
                text = f"{ready.status} {ready.reason}: {ready.message}" if ready else "no status"
                lines.append(f"  {item.kind} {item.metadata.name}: Ready {text}")
        lines += [f"  Pod {pod['metadata']['name']}: {pod_state(pod)}" for pod in self.pods]
        return "\n".join(lines)


def pod_state(pod: Json) -> str:
    """A pod's state in a few words, with the reason if a container waits or failed."""
    status = pod.get("status", {})
    words = [str(status.get("phase", "unknown"))]
    for each in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        state = each.get("state", {})
        details = state.get("waiting") or state.get("terminated") or {}
        if details.get("reason") not in (None, "Completed", "PodInitializing"):
            words.append(f"{each['name']}: {details['reason']} {details.get('message', '')}")
    return "; ".join(words).strip()


def _is_true(conditions: tuple[Condition, ...]) -> bool:
    ready = find(conditions, READY)
    return ready is not None and ready.status == "True"
