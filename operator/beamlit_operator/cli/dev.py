"""``beamlit dev``: a cluster, the operator and the gateway on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from beamlit_operator.cli.errors import BAD_INPUT, CommandError
from beamlit_operator.cli.parts import REVIVED, DevCluster, DevSettings, Report, dev_cluster
from beamlit_operator.cli.processes import (
    ProgramDiedError,
    Supervisor,
    adopt_orphans,
    end_descendants,
)
from beamlit_operator.cli.shipped import sample_folder

LOCK_FILE = "dev.lock"
"""Marks a data directory as ours, and is locked while it is in use."""


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def dev_command(settings: DevSettings, *, reset: bool) -> int:
    """Runs the cluster until a signal; 0 when it was ended so, else the reason on stderr."""
    console = Console()
    adopt_orphans()
    with owned(settings.data_dir, reset=reset):
        supervisor = Supervisor(settings.data_dir / "logs")
        try:
            with explained_deaths():
                async with until_signal() as ended:
                    await unless(ended, _run(settings, supervisor, console=console))
        finally:
            end_descendants()
    console.print("stopped; nothing is left running")
    return 0


async def _run(settings: DevSettings, supervisor: Supervisor, *, console: Console) -> None:
    status = console.status("starting")
    status.start()
    try:
        async with dev_cluster(
            settings, supervisor, report=reporter(console, status.update)
        ) as cluster:
            status.stop()
            console.print(welcome(cluster, settings), soft_wrap=True)
            supervisor.keep(
                *REVIVED, told=lambda death: console.print(revival(death), soft_wrap=True)
            )
            await supervisor.while_running(asyncio.Event().wait())
    finally:
        status.stop()


def revival(death: ProgramDiedError) -> str:
    """What to say when a part ended and was started again."""
    return f"{death} and was started again; its log goes on in {death.log}"


async def unless(ended: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does the work unless the event comes first; whether it was done."""
    task = asyncio.create_task(work)
    waiter = asyncio.create_task(ended.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def reporter(console: Console, update: Report) -> Report:
    """Shows each step: in place on a terminal, as a line elsewhere."""

    def report(step: str) -> None:
        if console.is_terminal:
            update(step)
        else:
            console.print(step)

    return report


@asynccontextmanager
async def until_signal() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets, instead of ending the program."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    # nohup asks for hang-ups to be ignored.
    heeded = [
        n for n in ENDING_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN
    ]
    for number in heeded:
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


@contextmanager
def explained_deaths() -> Iterator[None]:
    """Turns the death of a part into what to show a person: what it said last, and where."""
    try:
        yield
    except ProgramDiedError as death:
        lines = "\n".join(f"  {line}" for line in death.tail) or "  (it said nothing)"
        raise CommandError(f"{death}. Its log, {death.log}, ends with:\n{lines}") from death


@contextmanager
def owned(folder: Path, *, reset: bool) -> Iterator[None]:
    """Makes and locks a data directory; with ``reset`` everything in it goes first.

    Raises:
        CommandError: it is in use, cannot be written, or was not made by this command.
    """
    lock = folder / LOCK_FILE
    if reset and folder.exists() and not lock.exists() and any(folder.iterdir()):
        raise CommandError(
            f"--reset would empty {folder}, which `beamlit dev` did not make: remove it yourself",
            status=BAD_INPUT,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(
            f"--data-dir {folder} cannot be used: {error.strerror}", status=BAD_INPUT
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(
                f"{folder} is in use by another `beamlit dev`: end that one, or give another"
                " --data-dir"
            ) from error
        if reset:
            _empty(folder)
        # Nothing of it belongs into anybody's repository: it holds a key to the cluster.
        (folder / ".gitignore").write_text("*\n")
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == LOCK_FILE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            with contextlib.suppress(FileNotFoundError):
                entry.unlink()


def welcome(cluster: DevCluster, settings: DevSettings) -> Text:
    """What a person needs to know to use it; without a frame, so that it can be copied."""
    text = Text("\nready", style="bold green")
    text.append(f" in {cluster.seconds:.1f} s\n\nIn another terminal:\n\n", style="default")
    text.append(f"  export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}\n", style="bold")
    if sys.prefix != sys.base_prefix:
        # Nobody's shell finds what is in our environment, such as kubectl and this command.
        programs = shlex.quote(str(Path(sys.executable).parent))
        text.append(f"  export PATH=$PATH:{programs}\n", style="bold")
    text.append("\n")
    text.append(f"Gateway   {cluster.gateway}\n", style="default")
    if cluster.store:
        text.append(f"S3 store  {cluster.store}, the sample models are in s3://models\n", "default")
    text.append(f"Logs      {cluster.logs}\n\nThings to try:\n\n", style="default")
    for command in _things_to_try(settings):
        text.append(f"  {command}\n", style="bold")
    text.append(
        "\nFor laptops, demos and tests, never for production. Ctrl-C ends all of it.", "dim"
    )
    return text


def _things_to_try(settings: DevSettings) -> tuple[str, ...]:
    if not settings.samples:
        return (
            "kubectl get nodes -L topology.kubernetes.io/region",
            "kubectl explain modeldeployment.spec.serverlessConfig",
            "beamlit console",
        )
    # As one would type it here, which need not be where the samples are.
    folder = sample_folder("")
    here = Path.cwd()
    samples = shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))
    if settings.authentication:
        return (
            f"kubectl apply -f {samples}/quickstart",
            "kubectl create serviceaccount caller",
            "kubectl create rolebinding caller --clusterrole=beamlit-consumer"
            " --serviceaccount=default:caller",
            f"beamlit invoke iris --service-account caller -d @{samples}/requests/iris.json",
        )
    return (
        f"kubectl apply -f {samples}/quickstart",
        f"beamlit invoke iris -d @{samples}/requests/iris.json",
        "beamlit policy explain iris-production",
    )
