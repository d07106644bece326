"""One line chart as an SVG that needs nothing else, readable on light and dark pages."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 260, 70, 40, 40
_COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7c3aed", "#0e7490", "#be185d")


def chart(
    title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Return an SVG with one line a series, each a list of (x, y), all from zero."""
    points = [point for line in series.values() for point in line]
    right = _round_up(max((x for x, _ in points), default=1.0))
    top = _round_up(max((y for _, y in points), default=1.0))
    shapes = [*_grid(right, top, x_name, y_name)]
    for place, (name, line) in enumerate(series.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(
            f"{_LEFT + x / right * _WIDTH:.1f},{_TOP + (1 - y / top) * _HEIGHT:.1f}"
            for x, y in line
        )
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x = _LEFT + 10 + place * _WIDTH / max(1, len(series))
        shapes.append(
            f'<text x="{x:.0f}" y="34" style="fill: {colour}">&#9473; {html.escape(name)}</text>'
        )
    width, height = _LEFT + _WIDTH + 20, _TOP + _HEIGHT + _BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{html.escape(title)}">\n<style>text {{ font: 12px system-ui, sans-serif;'
        " fill: #6b7280 } .title { font-size: 14px } line { stroke: #9ca3af; stroke-width: 0.5 }"
        f'</style>\n<text class="title" x="{_LEFT}" y="16">{html.escape(title)}</text>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _grid(right: float, top: float, x_name: str, y_name: str) -> list[str]:
    shapes = []
    for step in range(5):
        y = _TOP + _HEIGHT * (1 - step / 4)
        shapes += [
            f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:g}</text>',
            f'<text x="{_LEFT + _WIDTH * step / 4:.1f}" y="{_TOP + _HEIGHT + 16}"'
            f' text-anchor="middle">{right * step / 4:g}</text>',
        ]
    middle = _TOP + _HEIGHT / 2
    return [
        *shapes,
        f'<text x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 34}" text-anchor="middle">'
        f"{html.escape(x_name)}</text>",
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_name)}</text>",
    ]


def _round_up(value: float) -> float:
    """Return the next number whose quarters are short: 1, 2, 4 or 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if value <= power * step * 1.0001)
