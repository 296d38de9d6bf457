"""What it takes to start a container: command, environment, folder, and how to probe it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.devcluster.images.store import SHIM, Program
from beamlit_operator.devcluster.kubelet.paths import PathMap
from beamlit_operator.devcluster.kubelet.probes import Target
from beamlit_operator.devcluster.kubelet.variables import ConfigError, Facts, environment, expand
from beamlit_operator.devcluster.kubelet.volumes import mounts_of
from beamlit_operator.kube import Json

TERMINATION_LOG = "/dev/termination-log"

ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Built into every client of the API server; for Python programs the shim makes it work."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Ready to start."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """The working directory."""
    target: Target
    termination_log: Path


def prepare(
    spec: Json,
    program: Program,
    facts: Facts,
    *,
    volumes: Mapping[str, Path],
    folder: Path,
    scratch: Path,
    base: Mapping[str, str],
) -> Launch:
    """The launch of one container.

    ``folder`` is the container's own, ``scratch`` the one for its temporary files; ``base`` is what
    every pod process gets. As in a real cluster,
    ``command`` replaces the image's command and arguments, ``args`` only its arguments.

    Raises:
        ConfigError: something it refers to is missing, or there is nothing to run.
    """
    termination_log = folder / "termination-log"
    name = facts.pod["metadata"]["name"]
    home = {
        "HOME": str(folder),
        "TMPDIR": str(scratch),
        "HOSTNAME": (facts.pod["spec"].get("hostname") or name)[:63],
    }
    image = {**base, **home, **program.environment(facts.pod_ip)}
    values = environment(spec, facts, image)
    mounts = mounts_of(spec, volumes, values)
    own_paths = PathMap(mounts)
    everything = PathMap(
        [*mounts, (spec.get("terminationMessagePath") or TERMINATION_LOG, str(termination_log))]
    )
    command = spec.get("command") or program.image.command
    arguments = spec.get("args") or (() if spec.get("command") else program.image.args)
    line = tuple(everything.rewrite(expand(part, values)) for part in (*command, *arguments))
    if not line:
        raise ConfigError("no command specified")
    values = {key: everything.rewrite(value) for key, value in values.items()}
    values.update(own_paths.variables())
    values.update(program.places())
    account = next((place for path, place in mounts if path == ACCOUNT_PATH), None)
    if account is not None:
        values["BEAMLIT_SERVICE_ACCOUNT"] = account
    values["PATH"] = _first(str(program.bin), values.get("PATH", ""))
    values["PYTHONPATH"] = _first(str(SHIM), values.get("PYTHONPATH", ""))
    working = spec.get("workingDir")
    rewritten = Path(everything.rewrite(working)) if working else folder
    ports = {
        port["name"]: int(port["containerPort"])
        for port in spec.get("ports") or ()
        if port.get("name")
    }
    return Launch(
        program.line(line),
        values,
        # A working directory of the image does not exist here; the container's own stands in.
        rewritten if rewritten.is_dir() else folder,
        Target(facts.pod_ip, ports, values, folder, everything.rewrite),
        termination_log,
    )


def _first(entry: str, rest: str) -> str:
    parts = [part for part in rest.split(":") if part and part != entry]
    return ":".join([entry, *parts])
