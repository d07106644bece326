"""Small SVG pictures and the page around them, with nothing from the network. Pure functions."""

from __future__ import annotations

import html
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 200, 60, 24

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --line: #d1d5db;
  --bar: #2563eb; --low: #c2410c; --back: #fff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e5e7eb; --soft: #9ca3af; --line: #374151;
  --bar: #60a5fa; --low: #fb923c; --back: #111827; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.05rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
td, th {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }}
svg {{ width: 100%; height: auto; }} svg text {{ fill: var(--soft); font-size: 11px; }}
.bar {{ fill: var(--bar); }} .low {{ fill: var(--low); }}
.curve {{ stroke: var(--bar); fill: none; stroke-width: 2; }} .axis {{ stroke: var(--line); }}
</style></head><body>
{body}
</body></html>
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole self-contained HTML page; `parts` are HTML already."""
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return a table; every cell is escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    ]
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>"


def bars(values: Sequence[float], first: str, last: str, label: str) -> str:
    """Return a bar chart; bars below zero hang down. `first` and `last` name the outer bars."""
    top, low = max([*values, 0.0]), min([*values, 0.0])
    span = (top - low) or 1.0
    zero = _HEIGHT * top / span
    step = (_WIDTH - _LEFT) / max(1, len(values))
    shapes = []
    for place, value in enumerate(values):
        height = abs(value) / span * _HEIGHT
        y = zero - height if value >= 0 else zero
        kind = "bar" if value >= 0 else "low"
        shapes.append(
            f'<rect class="{kind}" x="{_LEFT + place * step:.1f}" y="{y:.1f}"'
            f' width="{max(0.5, step * 0.85):.1f}" height="{height:.1f}"/>'
        )
    return _frame(label, (top, low, zero), (first, last), shapes)


def curve(points: Sequence[tuple[float, float]], label: str, unit: str) -> str:
    """Return a line through (x, y) points, x in order and from 0, y from 0."""
    right = max((x for x, _ in points), default=1.0) or 1.0
    top = max((y for _, y in points), default=1.0) or 1.0
    path = " ".join(
        f"{_LEFT + x / right * (_WIDTH - _LEFT):.1f},{_HEIGHT - y / top * _HEIGHT:.1f}"
        for x, y in points
    )
    shapes = [f'<polyline class="curve" points="{path}"/>']
    return _frame(label, (top, 0.0, _HEIGHT), (f"0 {unit}", f"{right:,.0f} {unit}"), shapes)


def _frame(
    label: str, heights: tuple[float, float, float], ends: tuple[str, str], shapes: Sequence[str]
) -> str:
    """Return a picture and its labels: values at top and bottom, where zero is, outer names."""
    (top, low, zero), (first, last) = heights, ends
    bottom = _HEIGHT + _BOTTOM
    texts = [
        f'<text x="0" y="10">{top:,.4g}</text>',
        f'<text x="0" y="{_HEIGHT}">{low:,.4g}</text>',
        f'<text x="{_LEFT}" y="{bottom - 8}">{html.escape(first)}</text>',
        f'<text x="{_WIDTH}" y="{bottom - 8}" text-anchor="end">{html.escape(last)}</text>',
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join([*shapes, *texts])}</svg>"
    )
