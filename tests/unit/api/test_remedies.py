"""Every reason says what to do."""

from __future__ import annotations

from beamlit_operator.api.reasons import Reason
from beamlit_operator.api.remedies import REMEDIES


def test_every_reason_has_a_remedy() -> None:
    missing = [str(reason) for reason in Reason if not REMEDIES.get(reason)]
    assert not missing, f"add what to do about {missing} to api/remedies.py"


def test_remedies_are_sentences() -> None:
    assert not [text for text in REMEDIES.values() if not text.endswith((".", ").", "!"))]
