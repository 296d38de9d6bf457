"""Applies a folder of manifests as a user would: with kubectl where there is one."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.manifests import read_manifests
from beamlit_operator.kube import resource_of

FIELD_MANAGER = "beamlit-cli"


async def apply_folder(folder: Path, kubeconfig: Path, *, workspace: str) -> tuple[str, list[str]]:
    """Applies every manifest in the folder; returns the command and its lines.

    Raises:
        CommandError: something was refused; says what.
    """
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        lines = await _apply(folder, kubeconfig, workspace=workspace)
        return f"server-side apply of {shown} (kubectl is not installed)", lines
    process = await asyncio.create_subprocess_exec(
        *(kubectl, "apply", "--namespace", workspace, "-f", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        start_new_session=True,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise CommandError(
            f"kubectl apply -f {shown} failed: {errors.decode(errors='replace').strip()}"
        )
    return f"kubectl apply -f {shown}", output.decode().splitlines()


async def _apply(folder: Path, kubeconfig: Path, *, workspace: str) -> list[str]:
    lines = []
    async with connection(Target(kubeconfig)) as client:
        for manifest in read_manifests([folder]):
            body = manifest.document
            body["metadata"].setdefault("namespace", workspace)
            resource = resource_of(body["apiVersion"], body["kind"])
            await client.apply(resource, body, field_manager=FIELD_MANAGER)
            lines.append(f"{body['kind'].lower()}/{body['metadata']['name']} applied")
    return lines
