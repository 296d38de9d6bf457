"""The GPUs a pod takes, whoever asked for them, held to what policies allow.

A flavor in `spec.flavors` is one way to get a GPU; a device resource in `spec.runtime.resources` or
in a pod template is another, and must not be a way around a flavor policy:

| the pod asks for a device and | flavors are limited to          | then                       |
|-------------------------------|---------------------------------|----------------------------|
| names a gpu flavor            |                                 | that one counts (`place`)  |
| names none                    | nothing: any flavor is allowed  | any node with the device   |
| names none                    | some gpu types with that device | those, as if it named them |
| names none                    | others                          | refused                    |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beamlit_operator.api.policy import Flavor
from beamlit_operator.policy.algebra import ValueSet, written
from beamlit_operator.policy.catalogue import Catalogue


class DeviceNotAllowedError(Exception):
    """A pod asks for a device of a kind that policies do not allow; says so to a person."""


def devices_of(pod: Mapping[str, Any], *, catalogue: Catalogue) -> frozenset[str]:
    """The GPU resources that the containers of a pod spec ask for, such as `nvidia.com/gpu`.

    Those of the catalogue count too: a cluster may have devices that nobody else knows.
    """
    known = {device.resource for device in catalogue.devices.values()}
    return frozenset(
        name
        for kind in ("containers", "initContainers")
        for container in pod.get(kind) or ()
        for part in ("limits", "requests")
        for name, amount in _amounts(container, part)
        if (is_gpu(name) or name in known) and str(amount) != "0"
    )


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU, another accelerator, or a share of one (`nvidia.com/mig-..`)."""
    domain, slash, name = resource.partition("/")
    return bool(slash) and (
        name == "gpu"
        or name.startswith(("gpu.", "mig-", "gpu-"))
        or domain in ("gpu.intel.com", "habana.ai")
        or resource == "google.com/tpu"
        or resource.startswith("aws.amazon.com/neuron")
    )


def flavors_to_place(
    pod: Mapping[str, Any],
    *,
    requested: Sequence[Flavor],
    allowed: ValueSet | None,
    catalogue: Catalogue,
) -> tuple[Flavor, ...]:
    """The flavors to place a pod for: those asked for, or those that its devices come down to.

    Args:
        pod: the pod spec before placement.
        requested: `spec.flavors`.
        allowed: the flavors that policies allow; None for any.
        catalogue: which device each gpu type is.

    Raises:
        DeviceNotAllowedError: no allowed flavor has the device.
    """
    devices = devices_of(pod, catalogue=catalogue)
    if allowed is None or not devices or any(each.type == "gpu" for each in requested):
        return tuple(requested)
    fitting = sorted(
        value.name
        for value in allowed
        if value.kind == "gpu"
        and value.name in catalogue.gpus
        and devices == {catalogue.gpus[value.name].resource}
    )
    if not fitting:
        raise DeviceNotAllowedError(
            f"the pod asks for {', '.join(sorted(devices))} in its resources, which policies do "
            f"not allow: allowed are {' '.join(written(allowed))}; remove the device, or list an "
            f"allowed gpu type in spec.flavors"
        )
    return tuple(Flavor(type="gpu", name=name) for name in fitting)


def _amounts(container: Mapping[str, Any], part: str) -> Iterable[tuple[str, Any]]:
    resources = container.get("resources")
    amounts = resources.get(part) if isinstance(resources, Mapping) else None
    return amounts.items() if isinstance(amounts, Mapping) else ()
