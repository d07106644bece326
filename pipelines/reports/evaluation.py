"""An evaluation for people: a table for the terminal, a page, and a line per query."""

from __future__ import annotations

from typing import Any

from pipelines.reports import pictures


def as_text(summary: dict[str, Any], queries: int) -> str:
    """Return the summary as a table for a terminal."""
    columns = list(next(iter(summary.values())))
    lines = [f"{queries} judged queries", "".join(f"{name:>10}" for name in ["", *columns])]
    for name, line in summary.items():
        cells = [f"{v:>10.4f}" if isinstance(v, float) else f"{v:>10}" for v in line.values()]
        lines.append(f"{name:>10}" + "".join(cells))
    return "\n".join(lines)


def as_page(summary: dict[str, Any], after: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Return the summary and the first measure's per-query deltas as a page."""
    columns = list(next(iter(summary.values())))
    rows = [[name, *line.values()] for name, line in summary.items()]
    parts = [pictures.heading("Evaluation", 1), pictures.table(rows, ["", *columns])]
    if before:
        name = next(iter(after))
        deltas = {query: value - before[name][query] for query, value in after[name].items()}
        ordered = sorted(deltas, key=lambda query: -deltas[query])
        picture = pictures.bars([deltas[q] for q in ordered], ordered[0], ordered[-1], "deltas")
        ends = [*ordered[:10], *[q for q in ordered[-10:] if q not in ordered[:10]]]
        parts += [pictures.heading(f"{name}: gain of each query"), picture]
        parts += [
            pictures.heading("Most won and lost"),
            pictures.table(
                [[q, f"{before[name][q]:.4f}", f"{after[name][q]:.4f}"] for q in ends],
                ["query", "before", "after"],
            ),
        ]
    return pictures.page("Evaluation", parts)


def per_query(
    after: dict[str, dict[str, float]], before: dict[str, dict[str, float]] | None
) -> str:
    """Return a tab-separated line per query and measure: value, and baseline and delta if any."""
    lines = ["query\tmeasure\tvalue" + ("\tbaseline\tdelta" if before else "")]
    for name, values in after.items():
        for query, value in values.items():
            cells = [query, name, f"{value:.6f}"]
            if before:
                old = before[name][query]
                cells += [f"{old:.6f}", f"{value - old:+.6f}"]
            lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
