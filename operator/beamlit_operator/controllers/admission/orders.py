"""May this order be given? Orders about a rollout are annotations of a ModelDeployment.

Only those are judged that this write sets or changes.

| order                         | is refused when                                                  |
|-------------------------------|------------------------------------------------------------------|
| any                           | it is malformed                                                  |
| any                           | there is no such revision                                        |
| any                           | no rollout of that revision is under way                         |
| promote REVISION/STEP         | the rollout is not at that step, or does not wait there          |

A write that also changes the spec may begin the rollout that its order is for: of its orders only
the form is judged. So are those of an object that is created, such as a restored one.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamlit_operator.api import ModelDeployment
from beamlit_operator.controllers.admission.decision import Finding
from beamlit_operator.controllers.rolling import under_way
from beamlit_operator.rollout.orders import ANNOTATIONS, PROMOTE, Order, parse


def refused(new: ModelDeployment, old: ModelDeployment | None) -> Iterator[Finding]:
    """What is wrong with the orders that a write gives."""
    before = old.metadata.annotations if old is not None else {}
    same_spec = old is not None and old.spec == new.spec
    for kind, annotation in ANNOTATIONS.items():
        value = new.metadata.annotations.get(annotation)
        if value is None or value == before.get(annotation):
            continue
        order = parse(kind, value)
        if order is None:
            forms = "REVISION or REVISION/STEP" if kind == PROMOTE else "REVISION"
            yield Finding(f"annotation {annotation} is {value[:80]!r}: it must be {forms}")
        elif old is not None and same_spec:
            problem = _problem(order, old)
            if problem:
                yield Finding(f"annotation {annotation}: {problem}")


def _problem(order: Order, deployment: ModelDeployment) -> str:
    """Why an order means nothing now."""
    revisions = [each.name for each in deployment.status.revisions]
    if order.revision not in revisions:
        known = ", ".join(revisions) or "none"
        return f"there is no revision {order.revision}; there are: {known}"
    run = under_way(deployment)
    if run is None or run.canary != order.revision:
        what = f"that of {run.canary} is" if run is not None else "none is"
        return f"no rollout of {order.revision} is under way, {what}"
    if order.step is None:
        return ""
    if run.step != order.step:
        at = f"at step {run.step}" if run.step is not None else "behind its last step"
        return f"the rollout is {at} of {run.steps or 0}, not at step {order.step}"
    if run.phase != "Paused":
        return (
            f"step {order.step} does not wait for approval ({run.phase}: {run.message}); "
            f"{order.revision} without a step gives it all requests"
        )
    return ""
