"""Conditions keep their transition time, and nothing else of the past."""

from datetime import UTC, datetime, timedelta

from beamlit_operator.api.conditions import READY, STALLED, condition, find, merge

NOW = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def ready(status: bool | None, now: datetime, message: str = "fine", generation: int = 1):
    return condition(READY, status, reason="Idle", message=message, generation=generation, now=now)


def test_transition_time_stays_while_the_status_stays():
    (merged,) = merge([ready(True, NOW)], [ready(True, LATER, "better", 2)])
    assert merged.last_transition_time == NOW.replace(microsecond=0)
    assert (merged.message, merged.observed_generation) == ("better", 2)


def test_transition_time_moves_when_the_status_does():
    (merged,) = merge([ready(True, NOW)], [ready(False, LATER)])
    assert merged.last_transition_time == LATER.replace(microsecond=0)


def test_a_condition_that_no_longer_holds_is_dropped():
    stalled = condition(STALLED, True, reason="NoOrigin", message="", generation=1, now=NOW)
    merged = merge([stalled, ready(False, NOW)], [ready(True, LATER)])
    assert [c.type for c in merged] == [READY]


def test_unknown_is_said_as_unknown_and_an_endless_message_is_cut():
    c = ready(None, NOW, "x" * 40000)
    assert c.status == "Unknown"
    assert len(c.message) == 32768
    assert find([c], STALLED) is None


def test_the_wire_form_is_what_kubernetes_writes():
    assert ready(True, NOW).to_wire() == {
        "type": "Ready",
        "status": "True",
        "reason": "Idle",
        "message": "fine",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": 1,
    }
