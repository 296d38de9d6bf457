"""One event a line, with what it is about, the same for operator and gateway."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from beamlit_operator.logs import JsonLines, TextLines, about, configure_logging


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("beamlit").makeRecord(
        "beamlit", logging.WARNING, "file", 1, message, (), None, extra=extra
    )


def test_a_line_says_what_the_work_is_about() -> None:
    with about(kind="Model", workspace="team", name="iris", generation=3):
        entry = json.loads(JsonLines().format(record("refused", because="quota")))
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "beamlit",
        "message": "refused",
        "kind": "Model",
        "workspace": "team",
        "name": "iris",
        "generation": 3,
        "because": "quota",
    }
    assert "name" not in json.loads(JsonLines().format(record("later")))


def test_the_name_of_an_object_passed_along_is_called_name() -> None:
    entry = json.loads(JsonLines().format(record("refused", object="iris")))
    assert entry["name"] == "iris"


async def test_tasks_on_two_objects_do_not_mix() -> None:
    lines: list[str] = []

    async def work(name: str) -> None:
        with about(name=name):
            await asyncio.sleep(0)
            lines.append(JsonLines().format(record(name)))

    await asyncio.gather(work("a"), work("b"))
    assert all(entry["name"] == entry["message"] for entry in map(json.loads, lines))


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()], ids=["json", "text"])
def test_a_message_with_line_breaks_is_one_line(formatter: logging.Formatter) -> None:
    assert "\n" not in formatter.format(record("one\ntwo\r\nthree", why="four\nfive"))


def test_text_does_not_repeat_what_the_sentence_says() -> None:
    line = TextLines().format(record("woke team/iris", workspace="team", revision="r1"))
    assert line.endswith("woke team/iris revision=r1")


@pytest.mark.parametrize(("format_", "level"), [("xml", "info"), ("json", "loud")])
def test_a_format_or_level_that_is_unknown_is_refused(format_: str, level: str) -> None:
    with pytest.raises(ValueError, match="not '"):
        configure_logging(format_=format_, level=level)
