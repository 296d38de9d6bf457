"""Step lines over time as SVG: all that the plots of the autoscaler need.

An own page of code, because the libraries do not fit: matplotlib needs 60 MB of others, and pygal
puts its version, the day and a style sheet under the LGPL into every plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 62


@dataclass(frozen=True)
class Line:
    """A value that stays until it changes."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    width: float = 2.0


@dataclass(frozen=True)
class Spans:
    """Times at which something was so, as a band behind the lines."""

    name: str
    colour: str
    spans: Sequence[tuple[float, float]]


def chart(title: str, lines: Sequence[Line], spans: Spans, *, x_label: str, y_label: str) -> str:
    """The SVG document. The same input gives the same text."""
    last = max(x for line in lines for x, _ in line.points)
    highest = max(y for line in lines for _, y in line.points)
    x_step, y_step = _tick(last), _tick(highest)
    top = math.ceil(highest * 1.05 / y_step) * y_step
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> str:
        return _short(LEFT + inner_width * value / last)

    def y(value: float) -> str:
        return _short(TOP + inner_height * (1 - value / top))

    floor = HEIGHT - BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="#333">',
        f"<title>{escape(title)}</title>",
        # Browsers in dark mode show SVG files as they are.
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for start, end in spans.spans:
        width = _short(float(x(end)) - float(x(start)))
        out.append(
            f'<rect x="{x(start)}" y="{TOP}" width="{width}" height="{inner_height}" '
            f'fill="{spans.colour}"/>'
        )
    for number in range(round(top / y_step) + 1):
        value = number * y_step
        out.append(
            f'<line x1="{LEFT}" y1="{y(value)}" x2="{WIDTH - RIGHT}" y2="{y(value)}" '
            f'stroke="#ddd"/><text x="{LEFT - 6}" y="{y(value)}" dy="4" '
            f'text-anchor="end">{_short(value)}</text>'
        )
    for number in range(int(last / x_step) + 1):
        value = number * x_step
        out.append(
            f'<text x="{x(value)}" y="{floor + 16}" text-anchor="middle">{_short(value)}</text>'
        )
    for line in lines:
        path = "".join(
            f"M{x(at)} {y(value)}" if first else f"H{x(at)}V{y(value)}"
            for first, (at, value) in zip(
                (True, *(False for _ in line.points)), line.points, strict=False
            )
        )
        out.append(
            f'<path d="{path}H{x(last)}" fill="none" stroke="{line.colour}" '
            f'stroke-width="{_short(line.width)}"/>'
        )
    out.append(
        f'<text x="{WIDTH - RIGHT}" y="{floor + 32}" text-anchor="end">{escape(x_label)}</text>'
        f'<text x="{LEFT - 40}" y="{TOP - 8}" font-size="10">{escape(y_label)}</text>'
    )
    at = LEFT
    for name, colour in (*((line.name, line.colour) for line in lines), (spans.name, spans.colour)):
        out.append(
            f'<rect x="{at}" y="{HEIGHT - 20}" width="18" height="8" fill="{colour}"/>'
            f'<text x="{at + 24}" y="{HEIGHT - 12}" font-size="12">{escape(name)}</text>'
        )
        at += 50 + 7 * len(name)
    return "\n".join([*out, "</svg>", ""])


def _tick(most: float) -> float:
    """The distance of about six marks: 1, 2, 3 or 5 times a power of ten, or 30 or 60."""
    rough = max(most, 1) / 6
    power = 10 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 3, 5, 6, 10) if m * power >= rough)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
