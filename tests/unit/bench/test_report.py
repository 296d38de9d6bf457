"""Whether an aim is met is told as precisely as the figure is printed."""

from __future__ import annotations

import pytest
from tests.bench.report import Aim, Row

AT_MOST, AT_LEAST = Aim(6), Aim(0.5, most=False)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("writes", 6.0, "requests", aim=AT_MOST), True),
        (Row("writes", 6.001, "requests", aim=AT_MOST), True),
        (Row("writes", 6.01, "requests", aim=AT_MOST), False),
        (Row("rate", 36.0, "1/s", "bare client", 49.0, AT_LEAST), True),
        (Row("rate", 20.0, "1/s", "bare client", 49.0, AT_LEAST), False),
        (Row("rate", 20.0, "1/s"), None),
    ],
)
def test_a_row_says_whether_its_aim_is_met(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_an_aim_is_printed_with_its_direction() -> None:
    assert (str(AT_MOST), str(AT_LEAST)) == ("≤ 6", "≥ 0.5")
