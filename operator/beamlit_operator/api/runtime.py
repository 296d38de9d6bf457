"""What serves a model: a preset, and what the user changes about it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from beamlit_operator.api.meta import Part
from beamlit_operator.api.schema import FreeForm, advice

AppProtocol = Literal["http", "kubernetes.io/h2c"]
"""What a model server speaks, in the words of a Service's `appProtocol` (KEP-3726)."""

H2C: AppProtocol = "kubernetes.io/h2c"


class Runtime(Part):
    """A preset named by `type`; every other field overrides it."""

    type: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra=advice(
            "write a type in lower-case letters, digits and '-', such as vllm; `beamlit runtimes` "
            "lists them"
        ),
    )
    """A preset: `vllm`, `sglang`, `tei`, `llamacpp`, `mlserver`, `triton`, `torchserve`, or one the
    cluster adds (`beamlit runtimes` lists them). Chosen from the model's files when unset."""
    image: str | None = Field(default=None, min_length=1, max_length=512)
    """The image of the model server."""
    command: tuple[str, ...] | None = Field(default=None, max_length=64)
    """The entry point, instead of the image's."""
    args: tuple[str, ...] | None = Field(default=None, max_length=256)
    """The arguments, instead of the preset's."""
    envs: tuple[FreeForm, ...] | None = Field(default=None, max_length=128)
    """Environment variables, as in a Pod's container; added to the preset's by name."""
    serving_port: int | None = Field(default=None, ge=1, le=65535)
    """The port on which the model server answers; 8080 unless the preset says otherwise."""
    app_protocol: AppProtocol | None = None
    """What the model server speaks on it: `http` (HTTP/1.1) when unset; `kubernetes.io/h2c` is
    HTTP/2 without TLS, which gRPC servers need."""
    metric_port: int | None = Field(default=None, ge=1, le=65535)
    """The port of its Prometheus metrics, if any."""
    readiness_probe: FreeForm | None = None
    """The readiness probe, as in a Pod's container, instead of the preset's. How it asks is how the
    start is watched, too."""
    startup_probe: FreeForm | None = None
    """The startup probe, as in a Pod's container, instead of the one made of the preset's time and
    the size of the model. It asks as the readiness probe does, unless it says how."""
    termination_grace_period_seconds: int | None = Field(default=None, ge=5, le=86400)
    """Seconds that a pod has to end, as in a Pod: 3 of them before the server is told, the rest to
    finish its requests. The preset's time and 3 more when unset."""
    resources: FreeForm | None = None
    """Resource requests and limits, as in a Pod's container."""
