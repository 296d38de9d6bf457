"""docs/lifecycle.md, command by command, on a cluster of its own: it prints what the page says.

``python -m tests.integration.cli.test_lifecycle_page`` writes what it prints into the page.
"""

from __future__ import annotations

import shutil

import pytest
from tests.support.reader import reader
from tests.support.stack import ROOT

PAGE = ROOT / "docs" / "lifecycle.md"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_every_command_of_the_page_prints_what_the_page_says() -> None:
    with reader() as person:
        wrong = person.first_wrong(PAGE)
    assert not wrong, wrong


if __name__ == "__main__":
    with reader() as someone:
        someone.rewrite(PAGE)
