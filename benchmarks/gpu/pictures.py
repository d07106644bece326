"""Two pictures of a run's figures. It reads the record, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.chart import bars, chart


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured as SVGs; nothing for parts that were not."""
    parts = result.get("parts", {})
    where = result.get("machine", {}).get("gpu") or "a CPU (dry run)"
    drawn: dict[str, str] = {}
    rates = _chunk_rates(parts.get("chunks", {}))
    if rates:
        title = f"Tokens per second: bge-reranker-v2-m3's shape, chunks, {where}"
        ours = {name for name in rates if name.startswith("ours")}
        drawn["gpu-chunks.svg"] = bars(title, rates, coloured=ours)
    waits = _waits(parts.get("requests", {}))
    if waits:
        title = f"One request, text to ranking, {where}"
        svg = chart(title, "documents x tokens", "p50, ms", waits, log=True)
        drawn["gpu-requests.svg"] = svg
    for name, svg in drawn.items():
        (folder / name).write_text(svg, encoding="utf-8")
    return [folder / name for name in drawn]


def _chunk_rates(chunks: dict[str, Any]) -> dict[str, float]:
    tokens = chunks.get("ours", {}).get("tokens")
    rates = {name: row["tokens_s"] for name, row in chunks.items() if "tokens_s" in row}
    for name in ("predict", "predict, compiled"):
        seconds = chunks.get(name, {}).get("seconds")
        if seconds and tokens:
            rates[name] = tokens / seconds
    return rates


def _waits(requests: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
    return {
        name: [(asked, row["p50_ms"]) for asked, row in found.items() if "x" in asked]
        for name, found in requests.items()
        if name != "launch cost" and not {"failed", "skipped", "refused"} & found.keys()
    }
