"""What the image installs is chosen of the lock, hashes included."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOCKED = runpy.run_path(str(ROOT / ".ci" / "locked.py"))


def test_every_package_of_the_lock_is_found_with_its_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text()
    entries = LOCKED["entries"](text)
    assert sum(lines.count("--hash=sha256:") for lines in entries.values()) == text.count("--hash=")
    assert all("--hash=sha256:" in lines for lines in entries.values())
    assert {"kopf", "pyyaml", "huggingface-hub"} <= entries.keys()


def test_pins_are_the_first_lines_without_hashes() -> None:
    text = (
        "anyio==4.1 ; sys_platform != 'x' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "PyYAML==6.0 \\\n    --hash=sha256:cc\n"
    )
    pins = LOCKED["pins"](LOCKED["entries"](text))
    assert pins == "anyio==4.1 ; sys_platform != 'x'\nPyYAML==6.0\n"
