"""The guarding process: ends every pod process when the cluster's process has ended.

A tiny child of the cluster that reads process group numbers from its standard input and, when that
closes, kills them all. Children that left their group are found by a mark in their environment,
where ``/proc`` exists. Started with ``python -I -S``; it imports as little as it can, because it
stays in memory as long as the cluster does.
"""

import os
import signal
import sys
import time

MARK = "BEAMLIT_CLUSTER_PROCESS"
"""Environment variable in every process of a pod: the cluster's token, then the container's."""


def kill_group(group: int) -> None:
    """Kills a process group, which may be gone."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return


def kill_marked(mark: str) -> int:
    """Kills every process whose mark begins with ``mark``; returns how many there were."""
    needle = f"{MARK}={mark}".encode()
    found = 0
    try:
        entries = os.listdir("/proc")
    except OSError:
        return 0
    for entry in entries:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if not any(part.startswith(needle) for part in file.read().split(b"\0")):
                    continue
            os.kill(int(entry), signal.SIGKILL)
            found += 1
        except OSError:
            continue
    return found


def main(token: str) -> None:
    """Reads groups until the cluster is gone, then kills them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        kill_group(group)
    # A process may fork while the others are looked for: until nothing is found.
    for _ in range(50):
        if not kill_marked(token):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
