"""Two pictures of a run's figures. It reads the record, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured as SVGs; nothing for parts that were not."""
    parts = result.get("parts", {})
    where = result.get("machine", {}).get("gpu") or "a CPU (dry run)"
    drawn = []
    rates = _chunk_rates(parts.get("chunks", {}))
    if rates:
        title = f"bge-reranker-v2-m3's shape, chunks, {where}"
        drawn.append(_bars(rates, title, "tokens per second", folder / "gpu-chunks.svg"))
    waits = _waits(parts.get("requests", {}))
    if waits:
        drawn.append(_lines(waits, f"one request, text to ranking, {where}", folder))
    return drawn


def _chunk_rates(chunks: dict[str, Any]) -> dict[str, float]:
    tokens = chunks.get("ours", {}).get("tokens")
    rates = {name: row["tokens_s"] for name, row in chunks.items() if "tokens_s" in row}
    for name in ("predict", "predict, compiled"):
        seconds = chunks.get(name, {}).get("seconds")
        if seconds and tokens:
            rates[name] = tokens / seconds
    return rates


def _waits(requests: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {asked: row["p50_ms"] for asked, row in found.items() if "x" in asked}
        for name, found in requests.items()
        if name != "launch cost" and not {"failed", "skipped", "refused"} & found.keys()
    }


def _bars(values: dict[str, float], title: str, unit: str, path: Path) -> Path:
    figure, axes = _figure(title)
    axes.barh(list(values), list(values.values()), color="#0f766e")
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    return _save(figure, path)


def _lines(series: dict[str, dict[str, float]], title: str, folder: Path) -> Path:
    figure, axes = _figure(title)
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set_ylabel("p50, ms")
    axes.set_yscale("log")
    axes.set_xlabel("documents x tokens")
    axes.legend(frameon=False)
    return _save(figure, folder / "gpu-requests.svg")


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    return figure, figure.add_subplot(title=title)


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import rc_context

    # Text stays text; without date and salt, the same figures make the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gpu"}):
        figure.savefig(path, metadata={"Date": None})
    return path
