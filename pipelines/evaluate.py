"""How good is an order: nDCG, MRR, recall and MAP of a run against judgements, before and after.

python -m pipelines.evaluate --run OUT --qrels FILE [--baseline RUN] [--html PAGE] [--per-query TSV]

A run is a job's output folder, a TREC run or Parquet; judgements are TREC qrels or Parquet with
query_id, doc_id, relevance. The measures are those of ir-measures (trec_eval's). It does not know
how a run was made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads

from pipelines import pictures
from pipelines.config import ColumnNames
from pipelines.verify import finished_manifest, open_result
from rerank_core import InvalidRequest, RerankError

MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "AP")
# Rounds of the paired test, and how many are held in memory at once.
_ROUNDS, _BLOCK = 10_000, 100
# query -> document -> a number that orders them, higher first
Run = dict[str, dict[str, float]]


def read_run(path: str, column: str | None = None) -> Run:
    """Read a run: job output folder, Parquet, or TREC run file.

    `column` orders by another column than the rank, for example the first stage's score.
    """
    if not _is_parquet(path):
        return _read_trec_run(Path(path))
    folder, called = Path(path), ColumnNames()
    if (folder / "_manifest.json").is_file():
        dataset = open_result(folder)
        called = ColumnNames(**finished_manifest(folder)["config"]["names"])
    else:
        dataset = pads.dataset(folder)
    there = dataset.schema.names
    query, document = called.query_id, called.doc_id
    if called.candidates in there:
        rows = [
            {**candidate, query: row[query]}
            for row in dataset.to_table(columns=[query, called.candidates]).to_pylist()
            for candidate in row[called.candidates] or ()
        ]
        there = list(rows[0]) if rows else there
    else:
        wanted = [n for n in (query, document, called.rank, called.score, column) if n in there]
        rows = dataset.to_table(columns=wanted).to_pylist()
    by = column or next((name for name in (called.rank, called.score) if name in there), None)
    if by is None or by not in there:
        raise InvalidRequest(f"{path} has no column {by or 'rank or score'}", "run")
    sign = -1.0 if by == called.rank else 1.0
    run: Run = {}
    for row in rows:
        if row[by] is not None:  # a document that the first stage did not have
            _add(run, str(row[query]), str(row[document]), sign * float(row[by]))
    return run


def _add(run: Run, query: str, document: str, value: float) -> None:
    """Add a document to a query's; one that comes twice stands where it stands best."""
    documents = run.setdefault(query, {})
    documents[document] = max(value, documents.get(document, value))


def _is_parquet(path: str) -> bool:
    return Path(path).is_dir() or path.endswith(".parquet")


def _read_trec_run(path: Path) -> Run:
    run: Run = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split()
        if len(parts) != 6:
            raise InvalidRequest(f"{path}:{number}: a TREC run line has 6 fields", "run")
        _add(run, parts[0], parts[2], -float(parts[3]))
    return run


def read_qrels(path: str) -> dict[str, dict[str, int]]:
    """Read judgements: TREC qrels (query, 0, document, relevance) or Parquet."""
    qrels: dict[str, dict[str, int]] = {}
    if _is_parquet(path):
        rows = pads.dataset(path).to_table(columns=["query_id", "doc_id", "relevance"]).to_pylist()
        judged = [(row["query_id"], row["doc_id"], row["relevance"]) for row in rows]
    else:
        judged = []
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if len(parts) not in (0, 4):
                raise InvalidRequest(f"{path}:{number}: a line of TREC qrels has 4 fields", "qrels")
            judged += [(parts[0], parts[2], parts[3])] if parts else []
    if not judged:
        raise InvalidRequest(f"{path} has no judgements", "qrels")
    for query, document, relevance in judged:
        qrels.setdefault(str(query), {})[str(document)] = int(relevance)
    return qrels


def evaluate(
    run: Run, qrels: dict[str, dict[str, int]], measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Return each measure for each judged query; a judged query without results scores 0."""
    import ir_measures

    parsed = [ir_measures.parse_measure(name) for name in measures]
    wanted = {query: run.get(query, {}) for query in qrels}
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    for metric in ir_measures.iter_calc(parsed, qrels, wanted):
        found[str(metric.measure)][metric.query_id] = float(metric.value)
    return found


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the two-sided p of a paired randomisation test: do the signs of the deltas matter?"""
    deltas = np.asarray(after) - np.asarray(before)
    random, chance = np.random.default_rng(0), 0
    for _ in range(_ROUNDS // _BLOCK):
        signs = random.choice((-1.0, 1.0), size=(_BLOCK, len(deltas)))
        chance += int((np.abs(signs @ deltas) >= abs(deltas.sum()) - 1e-12).sum())
    return (chance + 1) / (_ROUNDS + 1)


def compare(
    after: dict[str, dict[str, float]], before: dict[str, dict[str, float]] | None
) -> dict[str, Any]:
    """Return means, and against a baseline deltas, p-values, and how many queries won and lost."""
    summary: dict[str, Any] = {}
    for name, values in after.items():
        line: dict[str, Any] = {"mean": round(float(np.mean(list(values.values()))), 4)}
        if before:
            old = [before[name][query] for query in values]
            new = list(values.values())
            deltas = np.subtract(new, old)
            line |= {
                "baseline": round(float(np.mean(old)), 4),
                "delta": round(float(deltas.mean()), 4),
                "p": round(p_value(old, new), 4),
                "won": int((deltas > 1e-9).sum()),
                "lost": int((deltas < -1e-9).sum()),
            }
        summary[name] = line
    return summary


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 evaluated, 2 bad input."""
    parser = argparse.ArgumentParser("python -m pipelines.evaluate", description=__doc__)
    parser.add_argument("--run", required=True, help="output folder, TREC run or Parquet")
    parser.add_argument("--qrels", required=True, help="TREC qrels or Parquet")
    parser.add_argument("--baseline", help="another run to compare with")
    parser.add_argument("--baseline-column", help="compare with the run ordered by this column")
    parser.add_argument("--measures", nargs="+", default=list(MEASURES))
    parser.add_argument("--html", type=Path, help="write a page with a picture here")
    parser.add_argument("--per-query", type=Path, help="write each query's values and deltas here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        qrels = read_qrels(options.qrels)
        after = evaluate(read_run(options.run), qrels, options.measures)
        before = None
        if options.baseline or options.baseline_column:
            baseline = read_run(options.baseline or options.run, options.baseline_column)
            before = evaluate(baseline, qrels, options.measures)
    except (RerankError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    summary = compare(after, before)
    text = json.dumps(summary) if options.json else as_text(summary, len(qrels))
    sys.stdout.write(text + "\n")
    if options.per_query:
        options.per_query.write_text(per_query(after, before), encoding="utf-8")
    if options.html:
        options.html.write_text(as_page(summary, after, before), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
