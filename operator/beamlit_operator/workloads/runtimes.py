"""Which model server runs, and how: a preset, what the Model and the deployment change about it.

Presets are data (`runtimes.yaml`). The deployment's `runtime` is laid over the Model's, unless it
names another type: then nothing of the Model's is used, since it was meant for another server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from beamlit_operator.api.runtime import H2C, AppProtocol, Runtime
from beamlit_operator.workloads.detection import (
    first_gguf,
    mlserver_variables,
    suggest_runtime,
)
from beamlit_operator.workloads.files import MODELS

DEFAULT_PORT = 8080


@dataclass(frozen=True)
class Preset:
    """How one model server is run; the fields are those of `runtimes.yaml`."""

    type: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    port: int
    protocol: str
    ready: str
    image_gpu: str | None = None
    args_gpu: tuple[str, ...] = ()
    metric_port: int | None = None
    start_seconds: int = 600
    grace_seconds: int = 60
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    memory_volume: bool = False


@dataclass(frozen=True)
class Server:
    """A model server with everything filled in, as a container needs it."""

    type: str | None
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[Mapping[str, Any], ...]
    port: int
    metric_port: int | None
    readiness: Mapping[str, Any]
    """The handler and settings of the readiness probe."""
    resources: Mapping[str, Any]
    start_seconds: int
    grace_seconds: int
    memory_volume: bool
    app_protocol: AppProtocol | None = None
    """What it speaks, where that is not `http`."""


class RuntimeProblem(Exception):  # noqa: N818 (a problem of the user's, told in a condition)
    """The runtime cannot be decided; the message names the field and the fix."""


@cache
def presets() -> Mapping[str, Preset]:
    """The built-in presets by type, read from the packaged data once."""
    # Imported here: see policy.catalogue.
    import yaml

    text = files("beamlit_operator.workloads").joinpath("runtimes.yaml").read_text("utf-8")
    return {
        name: Preset(
            type=name,
            image=row["image"],
            image_gpu=row.get("imageGpu"),
            command=tuple(row["command"]),
            args=tuple(row["args"]),
            args_gpu=tuple(row.get("argsGpu", ())),
            port=row["port"],
            metric_port=row.get("metricPort"),
            protocol=row["protocol"],
            ready=row["ready"],
            start_seconds=row["startSeconds"],
            grace_seconds=row["graceSeconds"],
            env=row.get("env", {}),
            resources=row.get("resources", {}),
            memory_volume=row.get("memoryVolume", False),
        )
        for name, row in yaml.safe_load(text)["runtimes"].items()
    }


def merged_runtime(of_model: Runtime | None, of_deployment: Runtime | None) -> Runtime:
    """The deployment's runtime laid over the Model's, field by field.

    Raises:
        RuntimeProblem: a free-form field of either has not the shape it needs.
    """
    for runtime in (of_model, of_deployment):
        limits = ((runtime.resources or {}) if runtime else {}).get("limits")
        if limits is not None and not isinstance(limits, Mapping):
            raise RuntimeProblem("spec.runtime.resources.limits must be an object")
        for index, each in enumerate((runtime.envs or ()) if runtime else ()):
            if not isinstance(each.get("name"), str):
                raise RuntimeProblem(f"spec.runtime.envs[{index}] has no name: give it one")
    if of_model is None or of_deployment is None:
        return of_deployment or of_model or Runtime()
    if of_deployment.type is not None and of_deployment.type != of_model.type:
        return of_deployment
    changed = {
        name: value
        for name in Runtime.model_fields
        if (value := getattr(of_deployment, name)) is not None
    }
    changed["envs"] = merged_by_name(of_model.envs or (), of_deployment.envs or ()) or None
    return of_model.model_copy(update=changed)


def merged_by_name(
    below: Sequence[Mapping[str, Any]], above: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Environment variables of two sources; where both have a name, the second's counts."""
    found = {each["name"]: each for each in (*below, *above)}
    return tuple(found.values())


def server(
    runtime: Runtime,
    *,
    model: str,
    environment: str,
    paths: Sequence[str],
    gpus: int,
    known: Mapping[str, Preset] | None = None,
) -> Server:
    """The model server for a model's files.

    Args:
        runtime: what the user says, already merged.
        model: the Model's name; servers serve under it.
        environment: the Environment's; callers may name a model as ``model@environment``.
        paths: the names of its files.
        gpus: how many GPUs the container gets; 0 for none.
        known: the presets; the built-in ones by default.

    Raises:
        RuntimeProblem: an unknown type, or none and the files tell none either.
    """
    table = presets() if known is None else known
    preset = _preset(runtime, paths=paths, known=table)
    port = runtime.serving_port or (preset.port if preset else DEFAULT_PORT)
    metric_port = runtime.metric_port or (preset.metric_port if preset else None)
    gguf = first_gguf(paths)
    if preset is not None and runtime.args is None and "{gguf}" in preset.args and gguf is None:
        raise RuntimeProblem(
            f"spec.runtime.type is {preset.type}, but the origin holds no .gguf file: choose "
            f"another type, or say in spec.runtime.args what to load"
        )
    values = {
        "{port}": str(port),
        "{metricPort}": str(metric_port or ""),
        "{model}": model,
        "{environment}": environment,
        "{models}": MODELS,
        "{gguf}": gguf or "",
        "{gpus}": str(gpus),
    }

    def filled(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(_filled(text, values) for text in texts)

    image = runtime.image or ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    if preset is not None:
        image = (preset.image_gpu or preset.image) if gpus else preset.image
        command = preset.command
        args = preset.args + (preset.args_gpu if gpus > 1 else ())
        env = dict(preset.env)
        if preset.type == "mlserver":
            env.update(mlserver_variables(model, paths))
    return Server(
        type=preset.type if preset else runtime.type,
        image=runtime.image or image,
        command=filled(command) if runtime.command is None else runtime.command,
        # A command of the user's own comes without the preset's arguments, as in a pod.
        args=runtime.args
        if runtime.args is not None
        else filled(args if runtime.command is None else ()),
        env=merged_by_name(
            [{"name": name, "value": _filled(value, values)} for name, value in env.items()],
            runtime.envs or (),
        ),
        port=port,
        metric_port=metric_port,
        readiness=_readiness(runtime, preset, port),
        resources=runtime.resources or (preset.resources if preset else {}),
        start_seconds=preset.start_seconds if preset else 600,
        grace_seconds=preset.grace_seconds if preset else 60,
        memory_volume=preset.memory_volume if preset else False,
        app_protocol=H2C if runtime.app_protocol == H2C else None,
    )


def _preset(
    runtime: Runtime, *, paths: Sequence[str], known: Mapping[str, Preset]
) -> Preset | None:
    types = ", ".join(sorted(known))
    if runtime.type is not None:
        if runtime.type not in known:
            raise RuntimeProblem(
                f"spec.runtime.type {runtime.type!r} is not known: use one of {types}, or leave "
                f"it out and set spec.runtime.image"
            )
        return known[runtime.type]
    if runtime.image is not None:
        return None
    suggested = suggest_runtime(paths)
    if suggested is None:
        raise RuntimeProblem(
            f"the files of the origin do not tell which runtime serves them: set "
            f"spec.runtime.type to one of {types}, or set spec.runtime.image"
        )
    return known[suggested.type]


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _readiness(runtime: Runtime, preset: Preset | None, port: int) -> dict[str, Any]:
    if runtime.readiness_probe is not None:
        return dict(runtime.readiness_probe)
    if preset is None:
        # Nothing is known of a server of the user's own: ready is when it takes connections.
        return {"tcpSocket": {"port": port}}
    return {"httpGet": {"path": preset.ready, "port": port}}
