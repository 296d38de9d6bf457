"""A ModelDeployment as it changes, for commands that wait for the operator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from beamlit_operator.api import ModelDeployment
from beamlit_operator.kube import MODEL_DEPLOYMENTS, ApiError, HttpClient, Json

SEEN_WITHIN = 10.0
"""Seconds in which an operator that runs has looked at an edit."""


async def until_looked_at(client: HttpClient, live: Json) -> bool:
    """Waits until the operator has looked at the last edit; whether it did in time."""
    try:
        async with asyncio.timeout(SEEN_WITHIN), aclosing(changes(client, live)) as states:
            async for deployment in states:
                if (deployment.status.observed_generation or 0) >= deployment.metadata.generation:
                    return True
    except TimeoutError:
        pass
    return False


async def changes(client: HttpClient, live: Json) -> AsyncGenerator[ModelDeployment, None]:
    """The deployment as it is, and after each change, until it is deleted."""
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    only = f"metadata.name={name}"
    while True:
        listed = await client.list(MODEL_DEPLOYMENTS, namespace, field_selector=only)
        if not listed.items:
            return
        yield ModelDeployment.model_validate(listed.items[0])
        began = time.monotonic()
        try:
            watching = client.watch(
                MODEL_DEPLOYMENTS,
                namespace,
                resource_version=listed.resource_version,
                field_selector=only,
            )
            async with aclosing(watching):  # type: ignore[type-var]
                async for event in watching:
                    if event.type == "DELETED":
                        return
                    if event.type != "BOOKMARK":
                        yield ModelDeployment.model_validate(event.object)
        except ApiError as error:
            if not error.gone and error.status != 0:
                raise
        if time.monotonic() - began < 1:
            # A server that closes watches at once must not be asked over and over.
            await asyncio.sleep(1)
