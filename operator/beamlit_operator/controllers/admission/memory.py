"""Does a deployment ask for the memory that its model needs? By what the Model's status tells.

| of the deployment                                             | then                            |
|---------------------------------------------------------------|---------------------------------|
| no flavor it asks for has the GPU memory (`gpumemory`)        | warned, as `FlavorTooSmall` is  |
| no GPU, and a limit of memory that is less than the weights   | warned: it would be killed      |
| the same with llama.cpp, which maps its file                  | nothing: it is slow             |
| a server of the user's own, or facts that are not known       | nothing                         |

Warned only: the Model may get another revision before pods are made.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamlit_operator.api import Model, ModelDeployment
from beamlit_operator.controllers.admission.decision import Finding
from beamlit_operator.policy import Catalogue
from beamlit_operator.policy.algebra import ValueSet
from beamlit_operator.workloads import gpumemory
from beamlit_operator.workloads.arguments import memory_limit
from beamlit_operator.workloads.devices import devices_of
from beamlit_operator.workloads.runtimes import RuntimeProblem, merged_runtime

_MAPPING = "llamacpp"


def found(
    model: Model, deployment: ModelDeployment, *, allowed: ValueSet | None, catalogue: Catalogue
) -> Iterator[Finding]:
    """What its author should know."""
    facts = model.status.facts
    try:
        runtime = merged_runtime(model.spec.runtime, deployment.spec.runtime)
    except RuntimeProblem:
        return
    suggested = model.status.suggested_runtime
    chosen = suggested.type if suggested is not None and runtime.image is None else None
    serving = runtime.type or chosen
    if facts is None or serving is None:
        return
    container = {
        "resources": runtime.resources or {},
        "command": runtime.command or (),
        "args": runtime.args or (),
    }
    fitting = gpumemory.fitting(
        facts,
        runtime=serving,
        container=container,
        annotations=deployment.metadata.annotations,
        requested=tuple(deployment.spec.flavors),
        allowed=allowed,
        catalogue=catalogue,
    )
    if fitting.problem is not None:
        yield Finding(fitting.problem)
    limit = memory_limit(runtime.resources or {})
    with_gpu = any(each.type == "gpu" for each in deployment.spec.flavors) or devices_of(
        {"containers": [container]}, catalogue=catalogue
    )
    weights = facts.weight_bytes or 0
    if limit is not None and limit < weights and not with_gpu and serving != _MAPPING:
        yield Finding(
            f"spec.runtime.resources.limits.memory is {gpumemory.told(limit)}, and the model's "
            f"weights alone are {gpumemory.told(weights)}: the server would be killed; raise it"
        )
