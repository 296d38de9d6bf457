"""Which model server runs, and how: a preset, what the Model and the deployment change about it.

Presets are data (`runtimes.yaml`). The deployment's `runtime` is laid over the Model's, unless it
names another type: then nothing of the Model's is used, since it was meant for another server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from beamlit_operator.api.facts import ModelFacts
from beamlit_operator.api.runtime import H2C, AppProtocol, Runtime
from beamlit_operator.workloads.arguments import (
    Room,
    memory_limit,
    model_arguments,
    sharing_problem,
)
from beamlit_operator.workloads.detection import (
    first_gguf,
    mlserver_variables,
    suggest_runtime,
    why_unserved,
)
from beamlit_operator.workloads.files import MODELS
from beamlit_operator.workloads.presets import Preset, presets

DEFAULT_PORT = 8080

_LONGEST_PROBE = 7 * 24 * 3600
"""Seconds of a startup probe of the user's own that count for the Deployment's deadline."""


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
    """How long a start may take, besides reading the model."""
    memory_volume: bool
    grace_seconds: int = 60
    """How long it may take to finish its requests."""
    app_protocol: AppProtocol | None = None
    """What it speaks, where that is not `http`."""
    startup: Mapping[str, Any] | None = None
    """A startup probe of the user's own."""
    termination_seconds: int | None = None
    """The whole time that its pod has to end, if the user says so."""
    model_args: tuple[str, ...] = ()
    """The last of `args`: those that the model's files call for."""

    def with_model_args(self, args: Sequence[str]) -> "Server":
        """The same with other arguments for the model."""
        own = self.args[: len(self.args) - len(self.model_args)]
        return replace(self, args=(*own, *args), model_args=tuple(args))


class RuntimeProblem(Exception):  # noqa: N818 (a problem of the user's, told in a condition)
    """The runtime cannot be decided; the message names the field and the fix."""


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
    facts: ModelFacts | None = None,
    gpu_bytes: int | None = None,
) -> Server:
    """The model server for a model's files.

    Args:
        runtime: what the user says, already merged.
        model: the Model's name; servers serve under it.
        environment: the Environment's; callers may name a model as ``model@environment``.
        paths: the names of its files.
        gpus: how many GPUs the container gets; 0 for none.
        known: the presets; the built-in ones by default.
        facts: what the files say about the model, as far as that is known.
        gpu_bytes: the memory of each GPU, if it is known.

    Raises:
        RuntimeProblem: an unknown type, or none and the files tell none either; GPUs that cannot
            share the model.
    """
    table = presets() if known is None else known
    preset = _preset(runtime, paths=paths, facts=facts, known=table)
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
    model_args: tuple[str, ...] = ()
    resources = runtime.resources or (preset.resources if preset else {})
    if preset is not None:
        image = (preset.image_gpu or preset.image) if gpus else preset.image
        command = preset.command
        if gpus and preset.command_gpu is not None:
            command = preset.command_gpu
        args = preset.args + (preset.args_gpu if gpus > 1 else ())
        env = dict(preset.env)
        if runtime.args is None and runtime.command is None:
            if (problem := sharing_problem(preset, facts, gpus)) is not None:
                raise RuntimeProblem(problem)
            room = Room(gpus=gpus, gpu_bytes=gpu_bytes, limit_bytes=memory_limit(resources))
            model_args = filled(model_arguments(preset, facts, room))
        if preset.type == "mlserver":
            env.update(mlserver_variables(model, paths, facts))
    return Server(
        type=preset.type if preset else runtime.type,
        image=runtime.image or image,
        command=filled(command) if runtime.command is None else runtime.command,
        # A command of the user's own comes without the preset's arguments, as in a pod.
        args=runtime.args
        if runtime.args is not None
        else (*filled(args if runtime.command is None else ()), *model_args),
        env=merged_by_name(
            [{"name": name, "value": _filled(value, values)} for name, value in env.items()],
            runtime.envs or (),
        ),
        port=port,
        metric_port=metric_port,
        readiness=_readiness(runtime, preset, port),
        resources=resources,
        start_seconds=_start_seconds(runtime, preset),
        grace_seconds=preset.grace_seconds if preset else 60,
        memory_volume=preset.memory_volume if preset else False,
        app_protocol=H2C if runtime.app_protocol == H2C else None,
        startup=runtime.startup_probe,
        termination_seconds=runtime.termination_grace_period_seconds,
        model_args=model_args,
    )


def _start_seconds(runtime: Runtime, preset: Preset | None) -> int:
    """What the user's own startup probe allows, else the preset's time."""
    seconds = preset.start_seconds if preset else 600
    if runtime.startup_probe is None:
        return seconds
    # The defaults are Kubernetes' own.
    delay, period, failures = (
        value if isinstance(value := runtime.startup_probe.get(name), int) else default
        for name, default in (
            ("initialDelaySeconds", 0),
            ("periodSeconds", 10),
            ("failureThreshold", 3),
        )
    )
    return min(max(1, delay + period * failures), _LONGEST_PROBE)


def _preset(
    runtime: Runtime,
    *,
    paths: Sequence[str],
    facts: ModelFacts | None,
    known: Mapping[str, Preset],
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
    suggested = suggest_runtime(paths, facts)
    if suggested is None or suggested.type not in known:
        unserved = why_unserved(paths, facts)
        # Which says what else could be done.
        unknown = "the files of the origin do not tell which runtime serves them:"
        why = f"{unserved}; or" if unserved else unknown
        raise RuntimeProblem(
            f"{why} set spec.runtime.type to one of {types}, or set spec.runtime.image"
        )
    return known[suggested.type]


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _readiness(runtime: Runtime, preset: Preset | None, port: int) -> dict[str, Any]:
    if runtime.readiness_probe is not None:
        return dict(runtime.readiness_probe)
    if preset is None or preset.ready is None:
        # Nothing is known of a server of the user's own: ready is when it takes connections.
        return {"tcpSocket": {"port": port}}
    return {"httpGet": {"path": preset.ready, "port": port}}
