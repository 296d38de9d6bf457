"""The cluster a command talks to, chosen as ``kubectl`` chooses it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from beamlit_operator.cli.errors import CommandError
from beamlit_operator.kube import ApiError, HttpClient, connect

DEFAULT_WORKSPACE = "default"


class NoClusterError(CommandError):
    """Nobody named a cluster, and there is none where `kubectl` would look."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster and which workspace; None means as ``kubectl`` would decide."""

    kubeconfig: Path | None = None
    namespace: str | None = None

    @property
    def workspace(self) -> str:
        """The namespace given, else that of the current context, else ``default``."""
        return self.namespace or _context_namespace(self.kubeconfig) or DEFAULT_WORKSPACE


@asynccontextmanager
async def connection(target: Target) -> AsyncIterator[HttpClient]:
    """A client for the cluster.

    Raises:
        CommandError: there is no usable configuration, or the API server refused or did not answer.
    """
    from kubernetes.aio.config import ConfigException

    require_configuration(target.kubeconfig)
    try:
        client = await connect(target.kubeconfig)
    except (ConfigException, OSError, yaml.YAMLError) as error:
        raise _no_cluster(str(error)) from error
    async with client:
        try:
            yield client
        except ApiError as error:
            raise CommandError(explained(error)) from error


def require_configuration(kubeconfig: Path | None) -> None:
    """Says which file is not there or is no kubeconfig; the library would fail in its inside.

    Raises:
        CommandError: there is no file, or one that cannot be a kubeconfig.
    """
    named = [str(kubeconfig)] if kubeconfig else (os.environ.get("KUBECONFIG") or "").split(":")
    default = Path.home() / ".kube" / "config"
    paths = [Path(name).expanduser() for name in named if name]
    if not paths and "KUBERNETES_SERVICE_HOST" not in os.environ:
        if not default.exists():
            raise NoClusterError(
                _no_cluster(f"KUBECONFIG is not set, and {default} does not exist").message
            )
        paths = [default]
    there = [path for path in paths if path.exists()]
    if paths and not there:
        raise _no_cluster(f"{', '.join(map(str, paths))} does not exist")
    for path in there:
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
            raise _no_cluster(f"{path} cannot be read: {reason}") from error
        # Of several, some may be empty: kubectl makes them so.
        if not isinstance(document, dict) and (document is not None or len(there) == 1):
            raise _no_cluster(f"{path} is not a kubeconfig")


def _no_cluster(reason: str) -> CommandError:
    return CommandError(
        f"no cluster to talk to: {reason}\nSet KUBECONFIG or give --kubeconfig;"
        " `beamlit dev` starts a cluster on this machine."
    )


def explained(error: ApiError) -> str:
    """An API error in a sentence, with what to do about the usual ones."""
    if error.status == 0:
        return f"the API server does not answer: {error.message}\nIs the cluster running?"
    if error.status in (401, 403):
        return f"the API server refuses: {error.message}"
    if error.not_found and "beamlit.com" in error.message and not error.details.get("name"):
        return f"{error.message}\nAre the CRDs installed? `kubectl apply -f crds/` installs them."
    return error.message or str(error)


def _context_namespace(kubeconfig: Path | None) -> str | None:
    path = Path(
        kubeconfig
        or (os.environ.get("KUBECONFIG") or "").split(os.pathsep)[0]
        or Path.home() / ".kube" / "config"
    )
    try:
        document = yaml.safe_load(path.read_text()) or {}
        current = document.get("current-context")
        context = next(c["context"] for c in document["contexts"] if c["name"] == current)
        namespace = context.get("namespace")
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration, AttributeError):
        # Whatever is wrong with the file, connecting will say so.
        return None
    return str(namespace) if namespace else None
