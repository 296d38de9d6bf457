"""Memory that was given back leaves the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from beamlit_operator.controllers.heap import SETTINGS, give_back

GLIBC = platform.libc_ver()[0] == "glibc"

# Answers of an API server, between them what stays: without the settings the heap keeps their room.
PROGRAM = """
import sys
from pathlib import Path
from beamlit_operator.controllers.heap import give_back

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(l.split()[1]) for l in lines if l.startswith("Private_")) / 1024

if sys.argv[1] == "set":
    give_back({})
bytearray(30 << 20)  # glibc takes this as a sign that much more is to be kept from now on
before = private()
stays, answers = [], []
for _ in range(400):
    answers.append(bytearray(b"x") * (100 << 10))
    stays.append(bytearray(b"y") * 600)
del answers
print(private() - before)
"""


def _kept(how: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="glibc only")
def test_answers_leave_no_holes_in_the_heap():
    assert _kept("set") < 5 < 20 < _kept("unset")


@pytest.mark.skipif(not GLIBC, reason="glibc only")
def test_what_an_administrator_sets_stays():
    everything = {variable: "1" for _, variable, _ in SETTINGS}
    assert give_back(everything) == 0
