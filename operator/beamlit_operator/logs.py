"""How operator and gateway write their logs: one event a line, as text for people or as JSON.

Both write the same fields: `time` (UTC), `level`, `logger`, `message`, what the line is about
(`kind`, `workspace`, `name`, `generation`, as far as it is about an object) and what else was
passed as ``extra``; with an exception, `error` has its trace (as text it stands below its line).

Work on an object says so once, by :func:`about`; every line that is logged meanwhile carries it.
Text lines leave out what their sentence already says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_ABOUT: ContextVar[MappingProxyType[str, Any]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Says what the lines that are logged in this block (and in tasks made in it) are about."""
    token = _ABOUT.set(MappingProxyType({**_ABOUT.get(), **fields}))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a log call passed as ``extra``. There the name of an object is called ``object``, since
    a record's own ``name`` is its logger's."""
    return {
        "name" if name == "object" else name: value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ABOUT.get(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextLines(logging.Formatter):
    """One line for people; what was passed along stands behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = super().formatMessage(record)
        told = {name: value for name, value in fields_of(record).items() if str(value) not in line}
        more = "".join(f" {name}={value}" for name, value in told.items())
        return "\\n".join((line + more).splitlines())


def configure_logging(*, format_: str, level: str) -> None:
    """Logs to standard error, one event per line.

    Raises:
        ValueError: there is no such format or level.
    """
    if format_ not in ("text", "json"):
        raise ValueError(f"a log is text or json, not {format_!r}")
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"a log's level is debug, info, warning or error, not {level!r}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if format_ == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # kopf tells its own machinery at info; what concerns people is ours to log.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, root.level))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
