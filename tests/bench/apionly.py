"""An API server with many deployments and nothing that works on them: no controller, no kubelet.

A process of its own, so that its work is not counted as the gateway's. ``python -m
tests.bench.apionly DATA_DIR COUNT AWAKE UPSTREAM`` prints ``ready`` when everything is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import yaml
from tests.bench.inventory import Inventory, deployment, endpoints, model_deployment, status

from beamlit_operator.devcluster.apiserver import ApiServer
from beamlit_operator.kube import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    KubeClient,
)

CRDS = Path(__file__).parents[2] / "crds"


async def seed(client: KubeClient, inventory: Inventory, upstream: tuple[str, int]) -> None:
    """Stores everything a gateway reads of ``inventory``; the first ``awake`` have a pod."""
    for path in sorted(CRDS.glob("*.yaml")):
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text()))
    for workspace in inventory.workspaces():
        await client.create(
            NAMESPACES,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": workspace}},
        )
    for number in range(inventory.count):
        entry = inventory[number]
        made = await client.create(MODEL_DEPLOYMENTS, model_deployment(entry), entry.workspace)
        await client.update(
            MODEL_DEPLOYMENTS, {**made, "status": status(entry)}, subresource="status"
        )
        awake = number < inventory.awake
        await client.create(DEPLOYMENTS, deployment(entry, replicas=int(awake)), entry.workspace)
        await client.create(
            ENDPOINT_SLICES, endpoints(entry, [upstream] if awake else []), entry.workspace
        )


async def serve(folder: Path, inventory: Inventory, upstream: tuple[str, int]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = ApiServer(folder)
    await server.start()
    await seed(server.client, inventory, upstream)
    server.kubeconfig(folder / "kubeconfig")
    print("ready", flush=True)
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("awake", type=int)
    parser.add_argument("upstream", help="HOST:PORT of every pod")
    given = parser.parse_args()
    host, _, port = given.upstream.rpartition(":")
    asyncio.run(serve(given.folder, Inventory(given.count, given.awake), (host, int(port))))


if __name__ == "__main__":
    main()
