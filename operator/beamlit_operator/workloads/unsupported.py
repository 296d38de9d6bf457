"""What a ModelDeployment may say and this version does not act on, or must not.

Each is refused with the field and a sentence, in the condition `Ready=False,
reason=UnsupportedField`, and never ignored in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlit_operator.api import ModelDeployment


@dataclass(frozen=True)
class Unsupported:
    """A field that cannot be honoured, and a sentence that says so."""

    field: str
    message: str


def unsupported(deployment: ModelDeployment, *, engine: str = "native") -> list[Unsupported]:
    """Every field of the deployment that this version would have to ignore; empty if none.

    Args:
        deployment: the deployment.
        engine: what runs the workloads, as the operator was told.
    """
    return [*_engine(engine), *_fields(deployment), *_pod_template(deployment)]


def _engine(engine: str) -> Iterator[Unsupported]:
    if engine != "native":
        yield Unsupported(
            "--engine", f"the operator runs with engine {engine!r}; this version has only native"
        )


def _fields(deployment: ModelDeployment) -> Iterator[Unsupported]:
    spec = deployment.spec
    later = "is not supported by this version: remove it"
    for field, value in (
        ("spec.modelSourceRef", spec.model_source_ref),
        ("spec.serviceRef", spec.service_ref),
        ("spec.metricServiceRef", spec.metric_service_ref),
        ("spec.offloadingConfig", spec.offloading_config),
    ):
        if value is not None:
            yield Unsupported(field, f"{field} {later}")


def _pod_template(deployment: ModelDeployment) -> Iterator[Unsupported]:
    """What would undo the placement, or borrow rights on the node that the author may not have.

    The operator creates the pods with its own rights, so whoever may write a ModelDeployment could
    otherwise reach nodes through it.
    """
    template = deployment.spec.pod_template or {}
    spec = _map(template.get("spec"))
    if spec.get("nodeName"):
        yield Unsupported(
            "spec.podTemplate.spec.nodeName",
            "spec.podTemplate.spec.nodeName would bypass the policies: use nodeSelector",
        )
    if spec.get("resourceClaims"):
        yield Unsupported(
            "spec.podTemplate.spec.resourceClaims",
            "spec.podTemplate.spec.resourceClaims asks for devices that flavor policies do not "
            "see: use spec.flavors",
        )
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield _host(f"spec.podTemplate.spec.{field}")
    for volume in _maps(spec.get("volumes")):
        if volume.get("hostPath") is not None:
            yield _host(f"spec.podTemplate.spec.volumes[{volume.get('name')}].hostPath")
    for kind in ("containers", "initContainers"):
        for container in _maps(spec.get(kind)):
            field = f"spec.podTemplate.spec.{kind}[{container.get('name')}]"
            if _map(container.get("securityContext")).get("privileged"):
                yield _host(f"{field}.securityContext.privileged")


def _host(field: str) -> Unsupported:
    return Unsupported(field, f"{field} gives the pod rights on its node: remove it")


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value or () if isinstance(each, Mapping)] if _listed(value) else []


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)
