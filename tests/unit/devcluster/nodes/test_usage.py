"""Measuring processes by a pretend ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beamlit_operator.devcluster.kubelet import usage
from beamlit_operator.devcluster.kubelet.usage import UsageMeter, counters
from beamlit_operator.kube import ObjectKey

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
POD = ObjectKey("default", "web")


class Machine:
    """Processes of a pretend machine, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1000.0
        (folder / "self").mkdir(parents=True)
        (folder / "uptime").write_text("1 1")

    def runs(
        self,
        pid: int,
        *,
        parent: int = 1,
        session: int | None = None,
        cpu: float = 0.0,
        waited: float = 0.0,
        pages: int = 0,
        name: str = "python",
    ) -> None:
        place = self.folder / str(pid)
        place.mkdir(exist_ok=True)
        own, children = round(cpu * TICKS), round(waited * TICKS)
        session = pid if session is None else session
        head = f"{pid} ({name}) S {parent} {pid} {session} 0 -1 0 0 0 0 0"
        (place / "stat").write_text(f"{head} {own} 0 {children} 0 20 0 1 0 0 0 0")
        (place / "statm").write_text(f"{pages + 99} {pages + 7} 7 1 0 1 0")

    def ends(self, pid: int) -> None:
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "proc")


def test_a_container_is_its_process_its_session_and_all_descendants(machine: Machine) -> None:
    machine.runs(10, cpu=1.0, waited=0.5, pages=1)
    machine.runs(11, parent=10, session=10, cpu=2.0, pages=2)
    machine.runs(12, parent=11, session=12, cpu=4.0, pages=4, name="odd) name (")
    machine.runs(13, parent=1, session=10, cpu=8.0, pages=8)  # its parent ended
    machine.runs(99, cpu=1000.0, pages=1000)
    (found,) = counters([10], proc=machine.folder, now=5.0).values()
    assert found.cpu_seconds == pytest.approx(15.5)
    assert found.bytes == 15 * PAGE
    assert found.at == 5.0


def test_what_ended_is_left_out(machine: Machine) -> None:
    assert counters([10], proc=machine.folder, now=0.0) == {}


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert counters([10], proc=tmp_path / "none", now=0.0) == {}


async def test_a_rate_is_between_two_looks(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def a_second_passes(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        machine.now += 1.0
        machine.runs(10, cpu=0.25, pages=3)

    monkeypatch.setattr(usage.asyncio, "sleep", a_second_passes)
    machine.runs(10, cpu=0.0, pages=3)
    meter = UsageMeter(lambda: {POD: {"main": 10}}, proc=machine.folder, clock=lambda: machine.now)
    first = (await meter())[POD]
    assert (first.window_seconds, looks) == (1.0, 1)
    assert first.containers["main"].cores == pytest.approx(0.25)
    assert first.containers["main"].bytes == 3 * PAGE
    assert (await meter())[POD] is first, "asked again at once: the same answer"

    machine.now += 15.0
    machine.runs(10, cpu=3.25, pages=3)
    second = (await meter())[POD]
    assert (second.window_seconds, looks) == (15.0, 1), "no need to wait: there is a look before"
    assert second.containers["main"].cores == pytest.approx(3.0 / 15)

    machine.now += 3600.0
    machine.runs(10, cpu=4.0)
    third = (await meter())[POD]
    assert (third.window_seconds, looks) == (1.0, 2), "an hour is no window"


async def test_a_pod_is_told_when_all_of_its_containers_are_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def a_second_passes(_seconds: float) -> None:
        machine.now += 1.0
        machine.ends(11)

    monkeypatch.setattr(usage.asyncio, "sleep", a_second_passes)
    machine.runs(10)
    machine.runs(11)
    other = ObjectKey("default", "other")
    meter = UsageMeter(
        lambda: {POD: {"main": 10, "sidecar": 11}, other: {"main": 10}},
        proc=machine.folder,
        clock=lambda: machine.now,
    )
    assert set(await meter()) == {other}
