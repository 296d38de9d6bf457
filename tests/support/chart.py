"""The chart as Helm's own engine renders and installs it."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.stack import ROOT

from beamlit_operator.kube import SECRETS, Json, KubeClient

CHART = ROOT / "helm" / "beamlit-operator"
SYSTEM = "beamlit-system"
RELEASE = "beamlit"

Values = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What Helm made of the chart: the release's objects, its hooks and its notes."""

    objects: list[Json]
    hooks: list[Json]
    notes: str

    def all(self, kind: str) -> list[Json]:
        return [each for each in (*self.objects, *self.hooks) if each["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.all(kind)}

    def one(self, kind: str, name: str) -> Json:
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        return found

    def container(self, deployment: str, name: str) -> Json:
        spec = self.one("Deployment", deployment)["spec"]["template"]["spec"]
        every = (*spec.get("initContainers", ()), *spec["containers"])
        (found,) = [each for each in every if each["name"] == name]
        return found


async def stored(client: KubeClient, namespace: str = SYSTEM) -> Rendered:
    """The latest release as Helm keeps it in the cluster."""
    selector = f"owner=helm,name={RELEASE}"
    listing = await client.list(SECRETS, namespace, label_selector=selector)
    newest = max(listing.items, key=lambda it: int(it["metadata"]["labels"]["version"]))
    packed = base64.b64decode(base64.b64decode(newest["data"]["release"]))
    release = json.loads(gzip.decompress(packed))
    return Rendered(
        objects=[each for each in yaml.safe_load_all(release["manifest"]) if each],
        hooks=[yaml.safe_load(each["manifest"]) for each in release.get("hooks") or ()],
        notes=release["info"].get("notes", ""),
    )


def merged(*several: Values) -> Values:
    """Values over values, as Helm merges them."""
    result: Values = {}
    for values in several:
        for key, value in values.items():
            if isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merged(result[key], value)
            else:
                result[key] = value
    return result


_SERVER = """
import asyncio, sys
from pathlib import Path
from beamlit_operator.devcluster.apiserver import ApiServer

async def serve(folder):
    server = ApiServer(folder)
    await server.start()
    server.kubeconfig(folder / "kubeconfig")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

asyncio.run(serve(Path(sys.argv[1])))
"""
"""Ends when its standard input does, so with this process too."""


@contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    """An API server without anything that runs pods; gives the kubeconfig."""
    command = [sys.executable, "-c", _SERVER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line == b"ready\n", f"the API server did not start: {line!r}"
            yield folder / "kubeconfig"
        finally:
            process.stdin.close()
            process.wait(30)
