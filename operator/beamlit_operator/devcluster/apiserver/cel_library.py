"""Kubernetes' CEL functions that the language itself does not have.

Receivers come as the first argument: ``self.name.lowerAscii()`` calls ``lowerAscii(name)``. What is
not here is refused when a rule is compiled, never when it is evaluated.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    **{suffix: Decimal(10 ** (3 * power)) for power, suffix in enumerate("MGTPE", 2)},
    **{suffix + "i": Decimal(2 ** (10 * power)) for power, suffix in enumerate("KMGTPE", 1)},
}
_QUANTITY: Final = re.compile(r"([-+]?[0-9.]+)(?:[eE]([-+]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse_quantity(text: str) -> Decimal:
    """A resource quantity as a number.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity")
    try:
        number = Decimal(found[1])
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a quantity") from error
    if found[2]:
        return number * Decimal(10) ** int(found[2])
    return number * _SUFFIXES[found[3] or ""]


def _succeeds(function: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            function(text)
        except ValueError:
            return False
        return True

    return check


def _quantity(text: str) -> dict[str, str]:
    return {"quantity": str(parse_quantity(text))}


def _q(value: Any) -> Decimal:
    return Decimal(value["quantity"]) if isinstance(value, dict) else Decimal(value)


def _compare(first: Any, second: Any) -> int:
    return (_q(first) > _q(second)) - (_q(first) < _q(second))


def _url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not parts.scheme and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a URL")
    return {
        "scheme": parts.scheme,
        "host": parts.netloc.rpartition("@")[2],
        "hostname": parts.hostname or "",
        "port": str(parts.port or ""),
        "path": parts.path,
    }


def _index_of(value: Any, wanted: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return value.find(wanted, int(start))
    return next((i for i, item in enumerate(value) if item == wanted), -1)


def _last_index_of(value: Any, wanted: Any) -> int:
    if isinstance(value, str):
        return value.rfind(wanted)
    return max((i for i, item in enumerate(value) if item == wanted), default=-1)


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    limit = int(limit)
    if limit == 0:
        return []
    if not separator:
        return list(text)
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _format(template: str, values: list[Any]) -> str:
    rest = iter(values)

    def place(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        value = next(rest)
        if isinstance(value, bool):
            return "true" if value else "false"
        if found[2] == "f":
            return f"{float(value):.{found[1] or 6}f}"
        if found[2] == "x":
            return f"{value:x}"
        return str(value)

    return re.sub(r"%%|%(?:\.(\d+))?([sdfxeb])", place, template)


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [m.group(0) for m in re.finditer(pattern, text)]
    return found if int(limit) < 0 else found[: int(limit)]


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group(0) if found else ""


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, int(limit))


def _substring(text: str, start: int, end: int | None = None) -> str:
    stop = len(text) if end is None else int(end)
    if not 0 <= int(start) <= stop <= len(text):
        raise ValueError(f"substring range [{start}, {stop}) out of bounds")
    return text[int(start) : stop]


def _char_at(text: str, index: int) -> str:
    if not 0 <= int(index) <= len(text):
        raise ValueError(f"index {index} out of range")
    return text[int(index) : int(index) + 1]


def _ascii(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(char) if char.isascii() else char for char in text)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "lowerAscii": lambda text: _ascii(text, str.lower),
    "upperAscii": lambda text: _ascii(text, str.upper),
    "trim": lambda text: text.strip(),
    "split": _split,
    "join": lambda items, separator="": separator.join(items),
    "replace": _replace,
    "substring": _substring,
    "charAt": _char_at,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "format": _format,
    "find": _find,
    "findAll": _find_all,
    "isSorted": lambda items: all(a <= b for a, b in pairwise(items)),
    "sum": lambda items: sum(items),
    "isQuantity": _succeeds(parse_quantity),
    "quantity": _quantity,
    "isGreaterThan": lambda a, b: _compare(a, b) > 0,
    "isLessThan": lambda a, b: _compare(a, b) < 0,
    "compareTo": _compare,
    "sign": lambda a: (_q(a) > 0) - (_q(a) < 0),
    "asInteger": lambda a: int(_q(a)),
    "asApproximateFloat": lambda a: float(_q(a)),
    "isURL": _succeeds(_url),
    "url": _url,
    "getScheme": lambda url: url["scheme"],
    "getHost": lambda url: url["host"],
    "getHostname": lambda url: url["hostname"],
    "getPort": lambda url: url["port"],
    "getEscapedPath": lambda url: url["path"],
    "isIP": _succeeds(ipaddress.ip_address),
    "isCIDR": _succeeds(lambda text: ipaddress.ip_network(text, strict=False)),
}
"""By name; ``min`` and ``max`` of lists are the language's own."""

# fmt: off
LANGUAGE: Final = frozenset((
    "size", "contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one",
    "map", "filter", "int", "uint", "double", "string", "bool", "bytes", "type", "dyn",
    "duration", "timestamp", "max", "min", "getFullYear", "getMonth", "getDate", "getDayOfMonth",
    "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds",
    "optional", "none", "of", "ofNonZeroValue", "hasValue", "value", "or", "orValue", "optMap",
    "optFlatMap", "first", "last",
))
# fmt: on
"""Functions that the CEL implementation brings."""
