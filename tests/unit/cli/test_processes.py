"""Programs live as long as their supervisor, and no longer."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beamlit_operator.cli.processes import REVIVALS, Program, ProgramDiedError, Supervisor

DEADLINE = 60.0

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")

STUBBORN_FAMILY = (
    sys.executable,
    "-c",
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n",
)

PARENT = """
import asyncio, sys
from pathlib import Path
from beamlit_operator.cli.processes import REVIVALS, Program, Supervisor

async def main():
    supervisor = Supervisor(Path(sys.argv[1]))
    await supervisor.start(
        Program("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"))
    )
    print(supervisor.pids["sleeper"], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""

LEAVER = """
import subprocess, sys
from beamlit_operator.cli.processes import adopt_orphans, end_descendants

adopt_orphans()
middle = (
    "import subprocess, sys;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True);"
    "print(p.pid)"
)
orphan = subprocess.run([sys.executable, "-c", middle], capture_output=True, text=True).stdout
print(orphan.strip(), *end_descendants())
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


async def first_line(log: Path) -> str:
    async with asyncio.timeout(DEADLINE):
        while not log.exists() or "\n" not in log.read_text():
            await asyncio.sleep(0.02)
    return log.read_text().splitlines()[0]


async def test_stopping_ends_a_program_and_what_it_started(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    await supervisor.start(Program("family", STUBBORN_FAMILY))
    grandchild = int(await first_line(supervisor.log_of("family")))
    pid = supervisor.pids["family"]
    await supervisor.stop()
    assert not is_alive(pid)
    wait_until_gone(grandchild)
    assert supervisor.pids == {}


async def test_a_program_that_ends_ends_the_work_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    await supervisor.start(Program("sleeper", SLEEPER))
    await supervisor.start(
        Program("brief", (sys.executable, "-c", "print('no more'); raise SystemExit(3)"))
    )
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ProgramDiedError) as caught:
        async with asyncio.timeout(DEADLINE):
            await supervisor.while_running(work())
    await supervisor.stop()
    assert cancelled
    assert str(caught.value) == "the brief ended with status 3"
    assert caught.value.tail == ("no more",)


async def test_work_returns_its_result_while_programs_run(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    await supervisor.start(Program("sleeper", SLEEPER))

    async def work() -> int:
        return 7

    assert await supervisor.while_running(work()) == 7
    await supervisor.stop()


async def test_a_killed_program_says_by_which_signal(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    await supervisor.start(Program("sleeper", SLEEPER))
    await first_line(supervisor.log_of("sleeper"))
    os.kill(supervisor.pids["sleeper"], signal.SIGKILL)
    with pytest.raises(ProgramDiedError, match="was killed by signal 9"):
        async with asyncio.timeout(DEADLINE):
            await supervisor.while_running(asyncio.Event().wait())
    await supervisor.stop()


async def test_a_kept_program_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    await supervisor.start(Program("sleeper", SLEEPER))
    deaths: list[str] = []
    supervisor.keep("sleeper", told=lambda death: deaths.append(str(death)))

    async def kill_again_and_again() -> None:
        while True:
            seen, pid = len(deaths), supervisor.pids["sleeper"]
            os.kill(pid, signal.SIGKILL)
            while len(deaths) == seen:
                await asyncio.sleep(0.01)
            assert supervisor.pids["sleeper"] != pid

    with pytest.raises(ProgramDiedError, match="was killed by signal 9"):
        async with asyncio.timeout(DEADLINE):
            await supervisor.while_running(kill_again_and_again())
    assert len(deaths) == REVIVALS
    await supervisor.stop()
    assert supervisor.pids == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_programs_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_until_gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_what_a_dead_child_left_behind_is_found_and_ended() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LEAVER], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    orphan, *killed = (int(pid) for pid in ran.stdout.split())
    assert killed == [orphan]
    assert not is_alive(orphan)
