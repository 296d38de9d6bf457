"""How long routes wait for clusters, by a clock of the test's own."""

from __future__ import annotations

from beamlit_operator.gateway.warming import WARMING_LIMIT, WarmingPatience


def test_what_is_not_warming_is_not_waited_for() -> None:
    assert WarmingPatience().left(set(), 0.0) is None


def test_a_cluster_that_never_warms_is_given_up_however_many_others_come_and_go() -> None:
    patience = WarmingPatience()
    patience.left({"stuck"}, 0.0)
    for second in range(1, int(WARMING_LIMIT) + 1):
        left = patience.left({"stuck", f"new-{second}"}, float(second))
        assert left == WARMING_LIMIT - second
    assert patience.waited_for == {"stuck"}


def test_as_long_as_one_after_the_other_warms_all_are_waited_for() -> None:
    patience = WarmingPatience()
    warming = {f"c-{n}" for n in range(10)}
    patience.left(warming, 0.0)
    for n in range(9):
        warming.discard(f"c-{n}")
        assert patience.left(warming, 20.0 * n) == WARMING_LIMIT
    assert patience.left(set(), 200.0) is None


def test_those_that_came_later_have_a_time_of_their_own() -> None:
    patience = WarmingPatience()
    patience.left({"stuck"}, 0.0)
    assert patience.left({"stuck", "late"}, WARMING_LIMIT) == 0
    # The first one was given up.
    assert patience.left({"late"}, WARMING_LIMIT) == WARMING_LIMIT
    assert patience.waited_for == {"late"}
