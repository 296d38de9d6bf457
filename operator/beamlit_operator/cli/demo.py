"""``beamlit demo``: the main job from end to end on this machine, told as it happens.

Everything shown is read from the cluster or measured; nothing is played back.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

from beamlit_operator.api import labels
from beamlit_operator.cli.cluster import Target, connection
from beamlit_operator.cli.dev import explained_deaths, unless, until_signal
from beamlit_operator.cli.errors import CommandError
from beamlit_operator.cli.images import MLSERVER, pull
from beamlit_operator.cli.parts import DevCluster, DevSettings, dev_cluster
from beamlit_operator.cli.processes import Supervisor, adopt_orphans, end_descendants
from beamlit_operator.cli.scene import Scene
from beamlit_operator.cli.shipped import sample_folder
from beamlit_operator.cli.stage import Stage
from beamlit_operator.cli.story import DEPLOYMENT, WORKSPACE, Story

INTERRUPTED = 130


async def demo_command(*, keep: bool) -> int:
    """Runs the demo; 0 when all of it was as it should be.

    Raises:
        CommandError: something was not; says what, and where the logs are.
    """
    stage = Stage()
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="beamlit-demo-"))
    succeeded = False
    try:
        with explained_deaths():
            async with until_signal() as ended:
                succeeded = await unless(ended, _demo(stage, folder))
    except CommandError as failure:
        raise CommandError(
            f"{failure.message}\nThe logs are kept in {folder / 'logs'}", status=failure.status
        ) from failure
    finally:
        end_descendants()
        if succeeded and not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if not succeeded:
        stage.show(Text(f"interrupted; nothing is left running, the logs are in {folder / 'logs'}"))
        return INTERRUPTED
    if keep:
        stage.show(Text(f"The logs are in {folder / 'logs'}"))
    return 0


async def _demo(stage: Stage, folder: Path) -> None:
    started = time.monotonic()
    stage.title(
        "Beamlit: a governed model that costs nothing while nobody calls it",
        "A whole cluster on this machine, for the length of this demo.",
    )
    stage.section("Set up")
    with stage.step("pulling the MLServer image, once for all clusters of this user") as step:
        seconds = await pull(MLSERVER)
        step.done = "MLServer image pulled" if seconds else "MLServer image is here already"
    set_up = time.monotonic()
    supervisor = Supervisor(folder / "logs")
    settings = DevSettings(folder, samples=True)
    with stage.step("starting the cluster, the operator, the gateway and an S3 store") as step:
        context = dev_cluster(settings, supervisor, report=step.say)
        cluster = await context.__aenter__()
        step.done = "cluster, operator, gateway and S3 store run, sample models are in the store"
    try:
        await supervisor.while_running(_tell(stage, cluster))
    finally:
        with stage.step("stopping everything") as step:
            step.done = "everything stopped, nothing is left running"
            await context.__aexit__(None, None, None)
    now = time.monotonic()
    after = f", {now - set_up:.0f} s of it after the pull" if seconds else ""
    stage.show(Text(f"Done in {now - started:.0f} s{after}."))


async def _tell(stage: Stage, cluster: DevCluster) -> None:
    async with connection(Target(cluster.kubeconfig)) as client:
        scene = Scene(client, workspace=WORKSPACE, deployment=DEPLOYMENT)
        async with scene.followed():
            stage.show(_nodes(scene), _trained(cluster))
            story = Story(stage, scene, client, samples=sample_folder("quickstart"))
            await story.tell(cluster.kubeconfig)


def _nodes(scene: Scene) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("NODE", "REGION", "ARCH", "GPU"):
        table.add_column(column)
    for node in scene.nodes:
        known = node["metadata"].get("labels", {})
        table.add_row(
            node["metadata"]["name"],
            known.get(labels.NODE_REGION, "-"),
            known.get("kubernetes.io/arch", "-"),
            known.get("nvidia.com/gpu.product", "-"),
        )
    return table


def _trained(cluster: DevCluster) -> Text:
    text = Text("Trained     ")
    return text.append(
        ", ".join(
            f"{each['name']} ({each['kind']}, accuracy {each['accuracy']:.0%})"
            for each in cluster.samples
        )
    )
