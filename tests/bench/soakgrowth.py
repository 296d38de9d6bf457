"""What the processes of the soak hold over time: memory, file descriptors, queues."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
from tests.bench.report import Row

Read = Callable[[], int]


@dataclass
class Growth:
    """Samples by series; a series is one figure of one process."""

    samples: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    async def sample(self, processes: dict[str, int], gauges: dict[str, tuple[str, str]]) -> None:
        """Notes memory and descriptors of processes (by pid), and gauges (URL and metric's name).

        One that is away just now is left out.
        """
        now = time.monotonic()
        for name, pid in processes.items():
            try:
                self.samples[name, "MiB"].append((now, _anonymous_megabytes(pid)))
                self.samples[name, "descriptors"].append((now, len(os.listdir(f"/proc/{pid}/fd"))))
            except OSError:
                continue
        timeout = aiohttp.ClientTimeout(total=3)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            for name, (url, metric) in gauges.items():
                try:
                    async with http.get(url) as response:
                        text = await response.text()
                except (aiohttp.ClientError, TimeoutError, OSError):
                    continue
                total = sum(
                    float(line.rpartition(" ")[2])
                    for line in text.splitlines()
                    if line.startswith((f"{metric} ", f"{metric}{{"))
                )
                self.samples[name, "waiting"].append((now, total))

    def rows(self, since: float) -> list[Row]:
        """The median of the last quarter beside that of the first, of what was noted ``since``."""
        rows = []
        for (name, unit), samples in sorted(self.samples.items()):
            values = [value for at, value in samples if at >= since]
            quarter = len(values) // 4
            if quarter:
                first, last = median(values[:quarter]), median(values[-quarter:])
                rows.append(Row(f"{name}, last quarter", last, unit, "first quarter", first))
        return rows


def _anonymous_megabytes(pid: int) -> float:
    """Memory that is no file's: a program's own pages are shared, or not, by who else runs it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0
