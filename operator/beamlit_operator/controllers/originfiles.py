"""What a look at an origin found, as pods fetch it."""

from __future__ import annotations

from beamlit_operator.api.model import ModelSpec
from beamlit_operator.controllers import stores
from beamlit_operator.controllers.opening import access_of_pods
from beamlit_operator.controllers.originbook import Found, Question
from beamlit_operator.workloads.files import ModelFiles


def files_of(question: Question, found: Found, *, model: ModelSpec) -> ModelFiles:
    """The files of an origin: what was found, and how a pod gets at it."""
    return stores.model_files(
        question.ref,
        revision=found.revision,
        paths=found.paths,
        size=found.bytes,
        model=model,
        secret=question.secret,
        facts=found.facts,
        access=access_of_pods(
            question.opening, ref=question.ref, role=found.role, as_of=found.as_of
        ),
    )
