"""_report.html beside the result: what ran, how fast, what came out, what did not. Self-contained.

Made from the manifest and the records alone, so it can be made again at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.commits.records import REPORT, JobRecords
from pipelines.commits.store import Store
from pipelines.ranks.moves import RANK_CLASSES
from pipelines.reports import pictures

_SLOWEST = 10
_TIME_STEPS = 60


def write_report(store: Store, manifest: dict[str, Any], records: JobRecords) -> None:
    """Write the report of a finished job into its folder."""
    store.replace(REPORT, report(manifest, records).encode())


def report(manifest: dict[str, Any], records: JobRecords) -> str:
    """Return the page."""
    units = records.newest()
    scored = {name: record for name, record in units.items() if "seconds" in record}
    # Of a query that lies in several units the ranking over units knows, of others their unit.
    ranked = {n: r for stage in (units, records.ranks) for n, r in stage.items() if "moves" in r}
    # Of a former run that was appended to, only sums are known.
    new = {name: record for name, record in scored.items() if "former" not in record}
    counts = manifest["counts"]
    parts = [
        pictures.heading("Rerank job", 1),
        pictures.table(_facts(manifest, scored)),
        pictures.heading("Rows and pairs"),
        pictures.table([(name.replace("_", " "), f"{n:,}") for name, n in counts.items()]),
        pictures.heading("Pairs per second over time"),
        pictures.curve(throughput(list(new.values())), "pairs per second", "s"),
        pictures.heading("Scores"),
        pictures.bars(_added(scored, "score_histogram"), "0", "1", "score histogram"),
        pictures.heading("Places by which ranks moved against the input's order"),
        pictures.bars(
            _added(ranked, "moves"), "1,024 or more down", "1,024 or more up", "places moved"
        ),
        pictures.heading("Scores by rank"),
        *_scores_by_rank(_added(ranked, "rank_scores")),
        pictures.heading("Tokens of a pair"),
        pictures.bars(_added(scored, "token_histogram"), "1", "16,384", "token histogram"),
        pictures.heading("Set aside"),
        pictures.table(_reasons(units) or [("nothing", "")]),
        pictures.heading("Slowest units"),
        pictures.table(_slowest(new), ["unit", "seconds", "pairs", "tokens"]),
        pictures.heading("Inputs"),
        pictures.table(
            [(i["path"], f"{i['bytes']:,}", i["bad"]) for i in manifest["inputs"]],
            ["file", "bytes", "unreadable because"],
        ),
    ]
    return pictures.page("Rerank job", parts)


def _facts(manifest: dict[str, Any], scored: dict[str, Any]) -> list[tuple[str, object]]:
    scorer = manifest["config"]["scorer"]
    appended = manifest.get("appended")
    facts: list[tuple[str, object]] = [
        ("model", scorer["model"]),
        ("revision", scorer["revision"] or ""),
        ("fingerprint of scores", manifest["identity"]["scorer"]),
        ("fingerprint of inputs", manifest["identity"]["inputs"]),
        ("shape", manifest["shape"]),
        ("top k", manifest["config"]["top_k"] or "all"),
        ("units scored", f"{len(scored):,}"),
        ("seconds of scoring, all replicas", f"{sum(r['seconds'] for r in scored.values()):,.0f}"),
    ]
    if appended:
        added = f"{appended['rows']:,} rows of {appended['files']:,} files to {appended['to']}"
        facts.append(("appended", added))
    return facts + [(name, value) for name, value in manifest["versions"].items()]


def throughput(records: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return (seconds since the first unit began, pairs per second) over even steps of time."""
    if not records:
        return []
    start = min(record["at"] - record["seconds"] for record in records)
    width = max(1.0, (max(record["at"] for record in records) - start) / _TIME_STEPS)
    steps: Counter[int] = Counter()
    for record in records:
        # A unit's pairs are spread over the time that it took.
        first = int((record["at"] - record["seconds"] - start) / width)
        last = int((record["at"] - start) / width)
        for step in range(first, last + 1):
            steps[step] += record["counts"]["pairs_in"] / (last - first + 1)
    return [(step * width, steps[step] / width) for step in range(max(steps) + 1)]


def _added(records: dict[str, Any], key: str) -> list[float]:
    columns = zip(*(record[key] for record in records.values()), strict=True)
    return [float(sum(column)) for column in columns]


def _scores_by_rank(counts: Sequence[float]) -> list[str]:
    """Return a histogram for each class of ranks."""
    parts, first, steps = [], 1, len(counts) // (len(RANK_CLASSES) + 1)
    for number, last in enumerate((*RANK_CLASSES, None)):
        name = f"rank {first}" if first == last else f"ranks {first} to {last}"
        name = name if last else f"ranks from {first}"
        heights = counts[number * steps : (number + 1) * steps]
        parts += [pictures.heading(name, 3), pictures.bars(heights, "0", "1", f"scores, {name}")]
        first = (last or 0) + 1
    return parts


def _reasons(records: dict[str, Any]) -> list[tuple[str, str]]:
    reasons: Counter[str] = Counter()
    for record in records.values():
        reasons.update(record["reasons"])
    return [(reason, f"{count:,}") for reason, count in reasons.most_common()]


def _slowest(scored: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    names = sorted(scored, key=lambda name: -scored[name]["seconds"])[:_SLOWEST]
    return [
        (
            name,
            f"{scored[name]['seconds']:,.1f}",
            f"{scored[name]['counts']['pairs_in']:,}",
            f"{scored[name]['counts']['tokens']:,}",
        )
        for name in names
    ]
