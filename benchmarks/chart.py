"""Line and bar charts as the text of an SVG file. It knows nothing of what was measured.

    python -m benchmarks.chart

draws the README's speed comparison, light and dark, from the recorded result into docs/pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
RECORDED = ROOT / "benchmarks" / "results" / "scorer-embedded-cpu.json"
PICTURES = ROOT / "docs" / "pictures"
# (ground, ink, ours, others), as the playground has them.
SCHEMES = {
    "light": ("#ffffff", "#16201d", "#0f766e", "#b4beba"),
    "dark": ("#191f1d", "#e8edeb", "#5fc9b8", "#4a5652"),
}
# The names of the benchmark's rivals, as a reader knows them.
RIVALS = {
    "ours": "ray-rerank",
    "predict, best": "sentence-transformers,\nbest batch size",
    "infinity engine": "infinity's engine",
    "predict, 32": "sentence-transformers,\nas it comes",
    "FlagEmbedding's way, 128": "FlagEmbedding's way",
}
# Text stays text; without date and salt, the same figures make the same file.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "chart"}


def chart(
    title: str,
    x_name: str,
    y_name: str,
    series: Mapping[str, Sequence[tuple[float | str, float]]],
    *,
    log: bool = False,
) -> str:
    """Return an SVG with one line a series, each a list of (x, y), all from zero.

    Its ground is white, so that it can be read on dark pages. `log`: y by powers of ten.
    """
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x_name, ylabel=y_name)
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name)
    axes.set_xlim(left=0)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with rc_context(_STYLE):
        return _svg(figure)


def bars(
    title: str,
    rates: Mapping[str, float],
    scheme: str = "light",
    coloured: Collection[str] = ("ray-rerank",),
) -> str:
    """Return an SVG with one bar a name, longest first; ours are in colour."""
    ground, ink, ours, others = SCHEMES[scheme]
    rates = dict(sorted(rates.items(), key=lambda item: -item[1]))
    with rc_context(_STYLE | {"text.color": ink, "ytick.color": ink, "font.size": 11}):
        figure = Figure(figsize=(8, 1 + 0.5 * len(rates)), layout="constrained", facecolor=ground)
        figure.get_layout_engine().set(w_pad=0.2, h_pad=0.15)
        figure.suptitle(title, x=0.025, ha="left", fontsize=11)
        axes = figure.add_subplot(facecolor=ground)
        colours = [ours if name in coloured else others for name in rates]
        drawn = axes.barh(list(rates), list(rates.values()), 0.62, color=colours)
        axes.bar_label(drawn, [f"{rate:,.0f}" for rate in rates.values()], padding=5, color=ink)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([])
        return _svg(figure)


def grouped(title: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    """Return an SVG with a group of bars a name, each with one bar a rival; "ours" is in colour."""
    names = list(next(iter(rates.values())))
    height = 0.8 / len(names)
    figure = Figure(figsize=(9, 1.3 + 0.9 * len(rates)), layout="constrained")
    figure.suptitle(title, x=0.025, ha="left", fontsize=11)
    axes = figure.add_subplot()
    for place, name in enumerate(names):
        at = [row + place * height for row in range(len(rates))]
        colour = SCHEMES["light"][2] if name == "ours" else f"C{place}"
        drawn = [found[name] for found in rates.values()]
        axes.barh(at, drawn, height * 0.9, label=name, color=colour, alpha=0.9)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(rates))], list(rates))
    axes.invert_yaxis()
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with rc_context(_STYLE):
        return _svg(figure)


def speed(result: Mapping[str, Any], mix: str, scheme: str) -> str:
    """Draw tokens per second of each rival on one mix of pairs, from a scorer benchmark's JSON."""
    run, machine = result["runs"][0], result["machine"]
    found = run["mixes"][mix]["rivals"]
    where = machine["gpu"] or f"{machine['cpus']} cores of an {machine['cpu']}"
    title = f"Tokens per second: {mix}\nThe {result['model']} model in {run['dtype']} on {where}"
    return bars(title, {name: found[key]["tokens_s"] for key, name in RIVALS.items()}, scheme)


def pictures() -> dict[str, str]:
    """Return the README's two pictures by file name."""
    result = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {f"speed-{s}.svg": speed(result, "chunks, about 230 tokens", s) for s in SCHEMES}


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return file.getvalue()


if __name__ == "__main__":
    for file_name, svg in pictures().items():
        (PICTURES / file_name).write_text(svg, encoding="utf-8")
