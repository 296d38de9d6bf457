"""What several commands take, and how their work is run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="The cluster's configuration; as kubectl when not given."),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The workspace; the context's by default.")
]


def complete(work: Coroutine[Any, Any, int | None]) -> None:
    """Runs one command's work; its exit status, if it has one, ends the program."""
    try:
        status = asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if status:
        raise typer.Exit(status)
