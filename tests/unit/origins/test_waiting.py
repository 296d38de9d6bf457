"""Threads that wait for stores without an end keep nobody else from asking."""

import threading

from beamlit_operator.origins.waiting import ASKER, Waiting


def begun(waiting: Waiting, asker: str, place: str) -> bool:
    """Begins one that is given up; whether that was possible."""
    before = ASKER.set(asker)
    try:
        waiter = waiting.begin(place)
    finally:
        ASKER.reset(before)
    if waiter is not None:
        waiter.give_up()
        waiter.give_up()  # counts once
    return waiter is not None


def test_a_place_that_keeps_threads_is_not_asked_again_and_others_are() -> None:
    waiting = Waiting(of_place=2, of_asker=4, of_all=9)
    assert [begun(waiting, "a", "x") for _ in range(3)] == [True, True, False]
    assert begun(waiting, "a", "y")
    assert begun(waiting, "b", "x"), "the same place as another workspace asks for it"


def test_a_workspace_that_keeps_threads_by_many_places_keeps_no_other_from_asking() -> None:
    waiting = Waiting(of_place=2, of_asker=4, of_all=9)
    assert [begun(waiting, "a", f"{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert begun(waiting, "b", "0")
    assert [begun(waiting, "c", f"{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert not begun(waiting, "d", "0"), "nine wait altogether"


def test_one_that_ends_after_all_makes_room_and_leaves_nothing() -> None:
    waiting = Waiting(of_place=1, of_asker=1, of_all=1)
    waiter = waiting.begin("x")
    assert waiter is not None
    waiter.give_up()
    assert waiting.begin("x") is None
    thread = threading.Thread(target=waiter.end)
    thread.start()
    thread.join()
    other = waiting.begin("x")
    assert other is not None
    other.end()
    other.give_up()  # too late to count
    assert waiting.begin("x") is not None
    assert not waiting._places
    assert not waiting._askers
