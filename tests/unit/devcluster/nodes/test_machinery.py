"""The queue, the shared copies, logs, addresses, and the shim that binds a pod's address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.images.store import SHIM
from beamlit_operator.devcluster.informers import Index, RecentWrites
from beamlit_operator.devcluster.kubelet import logs, nodes, scratch
from beamlit_operator.devcluster.kubelet.addresses import Addresses
from beamlit_operator.devcluster.kubelet.logs import ContainerLog
from beamlit_operator.devcluster.loop import KeyLoop
from beamlit_operator.kube import ApiError, Change, ObjectKey


@contextlib.asynccontextmanager
async def running(loop: KeyLoop[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(check: Any) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.001)


async def test_a_key_added_while_it_is_in_work_runs_once_more_and_never_twice_at_once() -> None:
    calls, at_once, most = 0, 0, 0
    go_on = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal calls, at_once, most
        calls, at_once = calls + 1, at_once + 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1

    loop: KeyLoop[str] = KeyLoop("test", reconcile)
    async with running(loop):
        loop.add("a")
        await settled(lambda: calls == 1)
        for _ in range(5):
            loop.add("a")
        go_on.set()
        await settled(lambda: calls == 2 and at_once == 0)
    assert most == 1


async def test_a_failing_key_is_tried_again_and_does_not_disturb_others() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)
        if key == "bad" and seen.count("bad") < 4:
            raise ApiError(409, "Conflict", "again") if seen.count("bad") % 2 else ValueError("x")

    loop: KeyLoop[str] = KeyLoop("test", reconcile)
    async with running(loop):
        loop.add("bad")
        loop.add("good")
        await settled(lambda: seen.count("bad") == 4)
    assert seen.count("good") == 1


async def test_a_key_comes_back_when_its_time_is_up_and_earlier_plans_win() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    loop: KeyLoop[str] = KeyLoop("test", reconcile)
    async with running(loop):
        loop.add_after("a", 30)
        loop.add_after("a", 0.01)
        loop.add_after("a", 60)
        await settled(lambda: seen == ["a"])


def item(uid: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "name": uid, "resourceVersion": str(version)}, **more}


def change(old: Any, new: Any) -> Change:
    return Change(ObjectKey("", "x"), old, new)


def test_a_write_stands_in_until_the_reflector_shows_it() -> None:
    writes = RecentWrites()
    writes.wrote(item("a", 5))
    assert writes.over([], belongs=lambda _: True) == [item("a", 5)]
    assert writes.over([item("a", 4)], belongs=lambda _: True) == [item("a", 5)]
    assert writes.over([item("a", 4)], belongs=lambda _: False) == []
    writes(change(None, item("a", 5)))
    assert writes.over([], belongs=lambda _: True) == []


def test_a_write_that_the_reflector_was_faster_with_is_not_kept() -> None:
    writes = RecentWrites()
    writes(change(None, item("a", 7)))
    writes.wrote(item("a", 5))
    writes(change(item("b", 1), None))
    writes.wrote(item("b", 1))
    assert writes.over([], belongs=lambda _: True) == []


def test_a_write_that_never_comes_back_is_forgotten() -> None:
    now = 0.0
    writes = RecentWrites(lambda: now)
    writes.wrote(item("a", 5))
    now = 31.0
    assert writes.over([], belongs=lambda _: True) == []


def test_an_index_follows_changes() -> None:
    index = Index(lambda found: (found["node"],))
    first, moved = item("a", 1, node="x"), item("a", 2, node="y")
    index(change(None, first))
    assert index.get("x") == [first]
    index(change(first, moved))
    assert (index.get("x"), index.get("y")) == ([], [moved])
    index(change(moved, None))
    assert index.get("y") == []


async def collected(stream: AsyncIterator[bytes]) -> list[str]:
    return b"".join([part async for part in stream]).decode().splitlines()


async def test_a_log_is_bounded_and_a_reader_that_follows_misses_nothing(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path / "0.log", max_bytes=2000)
    following = asyncio.create_task(collected(log.follow(None, timestamps=False)))
    for number in range(200):
        log.write(f"line {number}\n".encode())
        await asyncio.sleep(0)
    log.write(b"no newline at the end")
    log.close()
    lines = await asyncio.wait_for(following, 60)
    assert lines == [f"line {number}" for number in range(200)] + ["no newline at the end"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5000
    last = await collected(logs.read(log.path, 2, timestamps=False))
    assert last == ["line 199", "no newline at the end"]
    assert logs.last_words(log.path, limit=5) == " end\n"


async def test_an_endless_line_is_stored_in_pieces(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path / "0.log")
    log.write(b"x" * 100_000)
    log.close()
    lines = await collected(logs.read(log.path, None, timestamps=False))
    assert "".join(lines) == "x" * 100_000
    assert len(lines) == 7


def test_addresses_are_not_reused_soon_and_never_shared_between_clusters() -> None:
    first, second = Addresses(), Addresses()
    try:
        given = [first.allocate() for _ in range(300)]
        first.release(given[0])
        assert first.allocate() not in given
        assert not set(given) & {second.allocate() for _ in range(300)}
        assert not any(address.startswith("127.0.") for address in given)
    finally:
        first.close()
        second.close()


BINDER = """
import asyncio, socket, sys
async def main():
    async def nothing(reader, writer): pass
    for host in (None, "", "0.0.0.0", "127.0.0.1"):
        server = await asyncio.start_server(nothing, host, 0)
        print(*(s.getsockname()[0] for s in server.sockets))
        server.close()
asyncio.run(main())
if "uvloop" in sys.argv:
    import uvloop
    uvloop.run(main())
plain = socket.socket(socket.AF_INET6)
plain.bind(("::", 0))
print(plain.getsockname()[0])
"""


def test_python_programs_bind_the_pods_address_instead_of_all() -> None:
    environment = {**os.environ, "BEAMLIT_BIND_ADDRESS": "127.9.8.7", "PYTHONPATH": str(SHIM)}
    result = subprocess.run(
        [sys.executable, "-c", BINDER, "uvloop"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    one_loop = ["127.9.8.7", "127.9.8.7", "127.9.8.7", "127.0.0.1"]
    assert result.stdout.split() == [*one_loop, *one_loop, "::ffff:127.9.8.7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: []", "expected a list"),
        ("nodes: [{name: A}]", r"nodes\[0\]\.name"),
        ("nodes: [{name: a}, {name: a}]", "the name a is there twice"),
        ("nodes: [{name: a, colour: red}]", r"nodes\[0\]: unknown key colour"),
        ("nodes: [{name: a, capacity: {cpu: x}}]", r"nodes\[0\]\.capacity\[cpu\]"),
    ],
)
def test_a_wrong_nodes_file_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(text)
    with pytest.raises(nodes.NodesError, match=message):
        nodes.load(path)


def test_the_default_nodes_are_in_three_regions_and_one_has_a_gpu() -> None:
    found = {item["metadata"]["name"]: item for item in nodes.load()}
    regions = {
        name: item["metadata"]["labels"]["topology.kubernetes.io/region"]
        for name, item in found.items()
    }
    assert regions == {
        "us-east": "us-east-1",
        "eu-west": "eu-west-1",
        "au-southeast": "ap-southeast-2",
    }
    with_gpu = [n for n, i in found.items() if "nvidia.com/gpu" in i["status"]["allocatable"]]
    assert with_gpu == ["us-east"]


def test_a_foreign_folder_for_temporary_files_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uid = "12345678-1234-1234-1234-123456789012"
    fallback = tmp_path / "own"
    assert scratch.create(uid, "c", otherwise=fallback) == scratch.folder_of(uid) / "c"
    scratch.remove(uid)
    (tmp_path / "elsewhere").mkdir()
    scratch.folder_of(uid).symlink_to(tmp_path / "elsewhere")
    assert scratch.create(uid, "c", otherwise=fallback) == fallback
    scratch.folder_of(uid).unlink()
    scratch.folder_of(uid).mkdir(mode=0o777)
    scratch.folder_of(uid).chmod(0o777)
    assert scratch.create(uid, "c", otherwise=fallback) == fallback
