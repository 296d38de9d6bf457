"""Fetching beside the stores' own command lines, from the same local servers: ``make bench-fetch``.

* S3: one object of 4 GiB, and 2,000 small ones, beside ``aws s3 cp --recursive``; the store is
  ``rclone serve s3`` on a directory, which answers from the page cache faster than either reads.
* Hub: a snapshot of one large file and 50 small ones, beside ``hf download``; the server is the
  tests' own, which speaks the Hub's API, and ``rclone serve http`` as its content network. Ours
  checks the Hub's digests, which ``hf download`` does not.
* A second fetch into the same directory, beside ``cp`` of the files.
* A fetcher of 512 MiB killed 50 times at random moments: it completes, and the store's own count
  of bytes, and what was written beside what was noted, say how much a kill costs.

Programs alternate, and so does who begins; for each fetch there is a new directory. Peak memory is
that of the whole process.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.fetchstage import (
    REPO,
    TOOLS,
    Run,
    Store,
    aws,
    aws_variables,
    hub_stored,
    ours,
    run,
    settled,
    stored,
)
from tests.bench.quiet import quiet_round
from tests.bench.report import Row, publish

from beamlit_operator.origins.fetching.arriving import BLOCK_BYTES

LARGE_NAME = "weights.safetensors"
KILLS = 50
KILLED_MEBIBYTES = 512
MOST_IN_A_ROW = 20
"""Kills of one fetch; then it is left alone, so that a busy machine ends the benchmark too."""

MIB = 2**20


@dataclass(frozen=True)
class Contest:
    """The runs of two programs that took turns."""

    ours: list[Run]
    theirs: list[Run]
    quiet: bool

    def seconds(self) -> tuple[float, float]:
        return _median(self.ours), _median(self.theirs)

    def memory(self) -> tuple[float, float]:
        return max(r.mebibytes for r in self.ours), max(r.mebibytes for r in self.theirs)


def contest(
    mine: Callable[[Path], Run], other: Callable[[Path], Run], *, rounds: int, work: Path
) -> Contest:
    """Lets both fetch in turns, each time into a directory that is not there yet. The order changes
    with each round, and a first fetch is not counted: on a virtual machine, memory that nobody had
    for a while costs whoever comes first seconds."""
    into = work / "into"

    def fetched(program: Callable[[Path], Run]) -> Run:
        found = program(into)
        shutil.rmtree(into)
        return found

    def one_round(number: int) -> tuple[Run, Run]:
        if number % 2:
            theirs = fetched(other)
            return fetched(mine), theirs
        return fetched(mine), fetched(other)

    fetched(other)
    rows = [
        quiet_round(partial(one_round, number), root=os.getpid(), tries=2)
        for number in range(rounds)
    ]
    return Contest([r[0][0] for r in rows], [r[0][1] for r in rows], all(r[1] for r in rows))


def _median(runs: Sequence[Run]) -> float:
    return statistics.median(each.seconds for each in runs)


def rate_rows(what: str, size: float, found: Contest, *, baseline: str, unit: str) -> list[Row]:
    mine, other = found.seconds()
    my_memory, other_memory = found.memory()
    return [
        Row(what, size / mine, unit, baseline, size / other),
        Row(f"{what}: peak memory", my_memory, "MiB", baseline, other_memory),
    ]


def s3_rows(work: Path, *, gigabytes: float, rounds: int) -> tuple[list[Row], list[str]]:
    data, notes = work / "data", []
    fill(data / "models" / "big" / LARGE_NAME, int(gigabytes * 2**30))
    fill(data / "models" / "killed" / LARGE_NAME, KILLED_MEBIBYTES * MIB)
    for number in range(2000):
        fill(data / "models" / "small" / f"part-{number:04}", 20_000)
    rows: list[Row] = []
    with stored(data) as store:
        for what, folder, size, unit in (
            (f"S3: one object of {gigabytes:g} GiB", "big", gigabytes * 1024, "MiB/s"),
            ("S3: 2,000 objects of 20 kB", "small", 2000, "objects/s"),
        ):
            uri = f"s3://models/{folder}"

            def mine(into: Path, uri: str = uri) -> Run:
                return run(ours(uri, into, store.endpoint), aws_variables())

            def other(into: Path, uri: str = uri) -> Run:
                return run(aws(uri, into, store.endpoint), aws_variables())

            found = contest(mine, other, rounds=rounds, work=work)
            rows += rate_rows(what, size, found, baseline="aws s3 cp", unit=unit)
            if not found.quiet:
                notes.append(f"{what}: other processes were busy in every try of a round")
        rows += second_rows(store, work, rounds=rounds)
        rows += kill_rows(store, work)
    return rows, notes


def second_rows(store: Store, work: Path, *, rounds: int) -> list[Row]:
    """The directory holds the revision already: what a second start pays, in the pod's own volume
    and from a cache."""
    into, copy, rows = work / "second", work / "copy", []
    for what, flags in (("the files are there", []), ("from a cache", ["--shared"])):
        first = [*ours("s3://models/big", into, store.endpoint), *flags]
        again = [*first, "--revision", _revision(first)]
        found, copies = [], []
        for _ in range(rounds):
            found.append(run(again, aws_variables()))
            copies.append(run(["cp", into / LARGE_NAME, copy], {}))
            copy.unlink()
        shutil.rmtree(into)
        mine, other = _median(found) * 1000, _median(copies) * 1000
        rows.append(Row(f"second start, {what}", mine, "ms", "cp of the file", other))
    return rows


def _revision(command: Sequence[str | Path]) -> str:
    environment = {"PATH": os.environ["PATH"], **aws_variables()}
    said = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, check=True
    ).stderr
    return said.rsplit(" at ", 1)[1].split()[0]


def kill_rows(store: Store, work: Path) -> list[Row]:
    """Kills fetchers of one object at random moments, and lets each next one go on."""
    chance, source = random.Random(5), work / "data" / "models" / "killed" / LARGE_NAME
    into = work / "killed"
    command = ours("s3://models/killed", into, store.endpoint)
    usual_seconds = run(command, aws_variables()).seconds
    shutil.rmtree(into)
    completed = wrong = kills = 0
    in_vain = twice = 0
    while kills < KILLS:
        sent, noted, mine = settled(store), 0, 0
        while True:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={"PATH": os.environ["PATH"], **aws_variables()},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(usual_seconds * chance.random() if mine < MOST_IN_A_ROW else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                break
            kills, mine = kills + 1, mine + 1
            sent_before, sent = sent, settled(store)
            noted_before = noted
            noted, lost = _noted(into, source.stat().st_size)
            in_vain = max(in_vain, (sent - sent_before) - (noted - noted_before))
            twice = max(twice, lost)
        completed += process.returncode == 0
        wrong += process.returncode != 0 or not filecmp.cmp(
            source, into / LARGE_NAME, shallow=False
        )
        shutil.rmtree(into)
    return [
        Row("fetchers killed at random", kills, "times"),
        Row("... fetches completed of them", completed, "fetches"),
        Row("... wrong or failed", wrong, "fetches"),
        Row("... fetched again for a kill, at most", twice / MIB, "MiB", "one part", 16),
        Row("... sent in vain, with the sockets' buffers", in_vain / MIB, "MiB"),
    ]


def _noted(into: Path, size: int) -> tuple[int, int]:
    """Bytes of a half-fetched object that the next fetcher does not fetch again, and those that had
    arrived too and that it does."""
    if (into / LARGE_NAME).exists():
        return size, 0  # killed between the publication and its end
    parts = [path for path in into.glob(".beamlit/work-*/parts/*") if not path.suffix]
    if not parts:
        done = list(into.glob(f".beamlit/work-*/files/{LARGE_NAME}"))
        return (size, 0) if done else (0, 0)
    record = parts[0].with_suffix(".done")
    lines = record.read_text().split("\n")[:-1] if record.exists() else []
    noted = {int(line) for line in lines}
    with parts[0].open("rb") as file:
        lost = sum(
            _written(file.fileno(), start, min(start + BLOCK_BYTES, size))
            for start in range(0, size, BLOCK_BYTES)
            if start not in noted
        )
    return sum(min(BLOCK_BYTES, size - start) for start in noted), lost


def _written(descriptor: int, start: int, end: int) -> int:
    """Bytes between two places of a file that were ever written (lseek(2), SEEK_DATA)."""
    found, place = 0, start
    while place < end:
        try:
            first = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:  # nothing behind
            break
        place = os.lseek(descriptor, first, os.SEEK_HOLE)
        found += max(min(place, end) - first, 0)
    return found


def hub_rows(work: Path, *, gigabytes: float, rounds: int) -> tuple[list[Row], list[str]]:
    files = {f"notes/{number}.json": os.urandom(5_000) for number in range(50)}
    files[LARGE_NAME] = os.urandom(int(gigabytes * 2**30))
    what = f"Hub: {gigabytes:g} GiB in one file, and 50 small ones"
    with hub_stored(work / "hub", files, large=LARGE_NAME) as endpoint:

        def mine(into: Path) -> Run:
            return run(ours(f"hf://{REPO}", into, endpoint), {})

        def other(into: Path) -> Run:
            home = work / "home"
            variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
            program = Path(sys.executable).with_name("hf")
            found = run([program, "download", REPO, "--local-dir", into, "--quiet"], variables)
            shutil.rmtree(home, ignore_errors=True)
            return found

        found = contest(mine, other, rounds=rounds, work=work)
    notes = [] if found.quiet else [f"{what}: other processes were busy in every try of a round"]
    size = gigabytes * 1024
    return rate_rows(what, size, found, baseline="hf download", unit="MiB/s"), notes


def fill(path: Path, size: int) -> None:
    """A file of random bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, 16 * MIB)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the large S3 object")
    parser.add_argument("--hub-gigabytes", type=float, default=1.0, help="of the Hub's large file")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not (TOOLS / "aws").exists():
        print(f"{TOOLS} has no aws and rclone: run `make bench-fetch`", file=sys.stderr)
        return 2
    # The store and the fetchers keep many files open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="beamlit-bench-fetch-") as name:
        work = Path(name)
        s3, s3_notes = s3_rows(work, gigabytes=given.gigabytes, rounds=given.rounds)
        hub, hub_notes = hub_rows(work, gigabytes=given.hub_gigabytes, rounds=given.rounds)
    publish("fetch", [*s3, *hub], [*s3_notes, *hub_notes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
