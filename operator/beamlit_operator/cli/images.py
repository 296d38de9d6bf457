"""Brings an image's program to this machine before a pod needs it."""

from __future__ import annotations

from beamlit_operator.cli.errors import BAD_INPUT, CommandError
from beamlit_operator.devcluster.images import (
    ImageStore,
    ImageTable,
    PullError,
    UnknownImageError,
)
from beamlit_operator.devcluster.images.store import cache_directory
from beamlit_operator.devcluster.images.table import InvalidImageError

MLSERVER = "docker.io/seldonio/mlserver"


async def pull(image: str) -> float:
    """Installs what stands for the image; seconds it took, 0 when it was there already.

    Raises:
        CommandError: no program stands for it, or it cannot be installed.
    """
    try:
        entry = ImageTable().find(image)
    except (UnknownImageError, InvalidImageError) as error:
        raise CommandError(str(error), status=BAD_INPUT) from error
    store = ImageStore(cache_directory())
    try:
        return (await store.pull(entry)).seconds
    except PullError as error:
        raise CommandError(f"{image} cannot be pulled: {error}") from error
    finally:
        await store.close()


async def pull_command(image: str) -> None:
    """``beamlit pull``."""
    seconds = await pull(image)
    print(f"{image}: {f'pulled in {seconds:.1f} s' if seconds else 'already here'}")
