"""How pages with commands are read, and when an output fits what the page says."""

from __future__ import annotations

import pytest
from tests.support.transcript import commands, fits, rewritten

PAGE = """# Title

```sh
not this
```

```console
$ echo one \\
    two
one two
$ true
```

text

```console
$ ls
a
...
```
"""


def test_commands_are_read_with_their_outputs_and_lines() -> None:
    found = [(each.line, each.text, each.output) for each in commands(PAGE)]
    assert found == [(8, "echo one \\\n    two", "one two"), (11, "true", ""), (17, "ls", "a\n...")]


@pytest.mark.parametrize(
    ("said", "printed", "fit"),
    [
        ("a b", "a   b  \n", True),
        ("a b", "a c", False),
        ("a", "", False),
        ("", "a", False),
        ("", "\n", True),
        ("a\n...\nz", "a\nz", True),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nb", False),
        ("pod/iris-0e52f835 x", "pod/iris-29351371 x", True),
        ("at 2026-11-23 00:48:35", "at 2027-01-01 10:00:00", True),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:5001/x", True),
        ("iris  True  17s", "iris  True  1m3s", True),
        ("iris  True  17s", "iris  True  3m", True),
        ("iris  True  17s", "iris  True  12m", True),
        ("iris  True  17s", "iris  False  17s", False),
        ("90 %", "10 %", False),
        ("analysis 20 requests, 50 % errors", "analysis 41 requests, 48.7 % errors", True),
        ("20 requests, p95 10 ms, stable p95 6.5 ms: x", "30 requests: x", True),
        ("20 requests, p95 10 ms: x", "20 requests, p95 9 ms: y", False),
    ],
)
def test_outputs_are_compared_in_shape(said: str, printed: str, fit: bool) -> None:
    assert fits(said, printed) is fit


def test_a_page_is_written_anew_with_what_commands_print() -> None:
    outputs = {"echo one \\\n    two": "1\n2\n", "true": "now something  \n", "ls": "gone\n"}
    page = rewritten(PAGE, lambda command: outputs[command.text])
    assert "    two\n1\n2\n$ true\nnow something\n```" in page
    # One with anything in it is a person's.
    assert "$ ls\na\n...\n```" in page
    assert page == rewritten(page, lambda command: outputs[command.text])
