"""One line chart as an SVG file's text, on a white ground so that it can be read on dark pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def chart(
    title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Return an SVG with one line a series, each a list of (x, y), all from zero."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x_name, ylabel=y_name)
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    file = io.StringIO()
    # Text stays text; without date and salt, the same figures make the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "chart"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return file.getvalue()
