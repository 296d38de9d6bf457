"""Sizes as they are told to people, and as people write them."""

from __future__ import annotations

import argparse
import re

_UNITS: dict[str, int] = {
    "": 1,
    **{unit: 1000**n for n, unit in enumerate(("k", "M", "G", "T", "P"), 1)},
    **{f"{unit}i": 1024**n for n, unit in enumerate(("K", "M", "G", "T", "P"), 1)},
}
"""Kubernetes' suffixes of quantities (apimachinery's resource.Quantity)."""

_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?([kMGTP]|[KMGTP]i)?")


def mebibytes(count: float) -> str:
    """For people: ``12.3 MiB``."""
    return f"{count / 2**20:.1f} MiB"


def size(text: str) -> int:
    """Bytes of a Kubernetes quantity.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 500Gi, 200G or bytes")
    whole, part, unit = found[1], found[2] or "", found[3] or ""
    return int(int(whole + part) * _UNITS[unit] // 10 ** len(part))
