"""Images as virtual environments: pulled once, whole or not at all, and run in pods."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from beamlit_operator.devcluster.cluster import DevCluster, Options
from beamlit_operator.devcluster.images import Image, ImageStore, PullError, interpreters
from beamlit_operator.kube import EVENTS, PODS

PROGRAM = "import os\ndef main():\n    print('hello from', os.environ['GREETER'], flush=True)\n"


def make_wheel(folder: Path) -> str:
    """Writes a wheel with one console script; returns its SHA-256."""
    files = {
        "greeter.py": PROGRAM,
        "greeter-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        "greeter-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        "greeter-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        rows.writerow([name, f"sha256={digest.decode().rstrip('=')}", len(text)])
    rows.writerow(["greeter-1.0.dist-info/RECORD", "", ""])
    files["greeter-1.0.dist-info/RECORD"] = record.getvalue()
    path = folder / "greeter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_requirements(folder: Path, *, digest: str | None = None) -> Path:
    found = make_wheel(folder)
    path = folder / "greeter.txt"
    path.write_text(
        f"--no-index\n--find-links {folder}\ngreeter==1.0 --hash=sha256:{digest or found}\n"
    )
    return path


def image(requirements: Path) -> Image:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Image("example.com/greeter", "venv", requirements, (version,), args=("greet",))


@pytest.mark.long
async def test_two_clusters_share_one_pull_and_an_interrupted_one_is_built_again(
    tmp_path: Path,
) -> None:
    entry = image(make_requirements(tmp_path))
    first, second = ImageStore(tmp_path / "cache"), ImageStore(tmp_path / "cache")
    assert await first.present(entry) is None
    pulls = await asyncio.gather(first.pull(entry), second.pull(entry), first.pull(entry))
    programs = {pull.program.bin for pull in pulls}
    assert len(programs) == 1
    folder = programs.pop().parent
    assert (folder / "bin" / "greet").exists()
    assert (await second.pull(entry)).seconds == 0
    # As if the machine had been switched off in the middle.
    (folder / ".complete").unlink()
    (folder / "bin" / "greet").unlink()
    (folder / "left-over").touch()
    assert await first.present(entry) is None
    assert (await first.pull(entry)).seconds > 0
    assert (folder / "bin" / "greet").exists()
    assert not (folder / "left-over").exists()


async def test_a_package_with_another_hash_is_refused_and_leaves_nothing_usable(
    tmp_path: Path,
) -> None:
    entry = image(make_requirements(tmp_path, digest="0" * 64))
    store = ImageStore(tmp_path / "cache")
    with pytest.raises(PullError, match=r"installing .*greeter\.txt failed"):
        await store.pull(entry)
    assert await store.present(entry) is None


async def test_a_python_that_does_not_run_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho 'python3.99: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await interpreters.find(["3.99"], or_newer=False) is None
    found = await interpreters.find(["3.9"], or_newer=True)
    assert found is not None
    assert found.version == f"{sys.version_info.major}.{sys.version_info.minor}"


async def test_a_pod_runs_a_pulled_image_and_its_events_tell_the_story(
    tmp_path: Path, make_pod: Any
) -> None:
    make_requirements(tmp_path)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    table = tmp_path / "images.yaml"
    table.write_text(
        f"""images:
  - image: example.com/greeter
    kind: venv
    requirements: greeter.txt
    python: ["{version}"]
    args: [greet]
    env: {{GREETER: "{{podIP}}"}}
"""
    )
    options = Options(tmp_path / "c", images=(table,), image_cache=tmp_path / "cache")
    body = make_pod("greeter", restartPolicy="Never")
    body["spec"]["containers"] = [{"name": "c", "image": "example.com/greeter:1"}]
    async with DevCluster(options) as cluster:
        await cluster.client.create(PODS, body)
        found: dict[str, Any] = {}
        reasons: set[str] = set()
        async with asyncio.timeout(120):
            while found.get("status", {}).get("phase") != "Succeeded" or "Pulled" not in reasons:
                await asyncio.sleep(0.05)
                found = await cluster.client.get(PODS, "greeter", "default")
                events = await cluster.client.list(EVENTS, "default")
                reasons = {item["reason"] for item in events.items}
        stream = await cluster.workloads.kubelet.logs("default", "greeter")
        text = b"".join([part async for part in stream]).decode()
    assert text == f"hello from {found['status']['podIP']}\n"
    assert {"Pulling", "Pulled", "Created", "Started"} <= reasons
