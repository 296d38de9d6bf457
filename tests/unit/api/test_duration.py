"""Durations as Kubernetes users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamlit_operator.api.duration import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60s", 60), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1.5m", 90), ("0s", 0)],
)
def test_a_duration_is_read_in_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "60", "s", "-5s", "1 m", "1d", "5s!", "٣s", "5s\n"])
def test_what_is_not_a_duration_is_refused_with_how_to_write_one(text):
    with pytest.raises(ValueError, match="such as 90s"):
        seconds(text)


@given(st.integers(0, 10**6), st.integers(0, 59))
def test_parts_add_up(minutes, secs):
    assert seconds(f"{minutes}m{secs}s") == minutes * 60 + secs
