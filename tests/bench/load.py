"""Load from outside: wrk, with 64 connections that send predictions to a list of paths."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gatewaystage import OTHER_CORE

CONNECTIONS = 64

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}
)
"""A small request of the Open Inference Protocol."""

SCRIPT = """
local paths = {{ {paths} }}
local headers = {{ ["Content-Type"] = "application/json"{shown} }}
local requests = {{}}
local turn = 0
init = function()
  for n, path in ipairs(paths) do
    requests[n] = wrk.format("POST", path, headers, '{body}')
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nresult {{"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class NoLoadGeneratorError(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Latencies in milliseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


def script(folder: Path, name: str, paths: Sequence[str], *, token: str = "") -> Path:
    """A wrk script that asks for the paths in turn, with a token if there is one."""
    file = folder / f"{name}.lua"
    wanted = ", ".join(f'"{path}"' for path in paths)
    shown = f', ["Authorization"] = "Bearer {token}"' if token else ""
    file.write_text(SCRIPT.format(paths=wanted, body=BODY, shown=shown))
    return file


def run(address: str, lua: Path, *, seconds: int) -> Measured:
    """Loads an address.

    Raises:
        NoLoadGeneratorError: there is no wrk.
        RuntimeError: an answer was not a success.
    """
    binary = shutil.which("wrk")
    if binary is None:
        raise NoLoadGeneratorError("wrk is needed (Debian: apt install wrk)")
    cores = sorted(os.sched_getaffinity(0))
    core = str(cores[OTHER_CORE % len(cores)])
    command = [binary, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(lua), address]
    done = subprocess.run(
        ["taskset", "-c", core, *command], capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("result "))
    found = json.loads(line.removeprefix("result "))
    if found["errors"] or not found["requests"]:
        raise RuntimeError(f"{address}: {found['errors']} of {found['requests']} failed")
    return Measured(
        found["requests"],
        found["requests"] / (found["microseconds"] / 1e6),
        found["p50"] / 1000,
        found["p99"] / 1000,
    )
