"""How good is an order: nDCG, MRR, recall and MAP of a run against judgements, before and after.

python -m pipelines.evaluate --run OUT --qrels FILE [--baseline RUN] [--html PAGE] [--per-query TSV]

A run is a job's output folder, a TREC run or Parquet; judgements are TREC qrels or Parquet with
query_id, doc_id, relevance. The measures are those of ir-measures (trec_eval's), the test that of
scipy; both come with the extra `evaluate`. It does not know how a run was made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.inputs.runs import Run, read_qrels, read_run
from pipelines.reports.evaluation import as_page, as_text, per_query
from pipelines.reports.side_files import refuse_unwritable, writing
from rerank_core import InvalidRequest, RerankError

__all__ = ["MEASURES", "Run", "compare", "evaluate", "main", "p_value", "read_qrels", "read_run"]


MEASURES = ("nDCG@10", "RR@10", "R@10", "R@100", "AP")
# Rounds of the paired test, and how many are held in memory at once.
_ROUNDS, _BLOCK = 10_000, 100
_MISSING = "evaluating needs the extra `evaluate`: pip install 'ray-rerank[evaluate]'"


def evaluate(
    run: Run, qrels: dict[str, dict[str, int]], measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Return each measure for each judged query; a judged query without results scores 0."""
    try:
        import ir_measures
    except ImportError:
        raise InvalidRequest(_MISSING, "measures") from None
    parsed = [ir_measures.parse_measure(name) for name in measures]
    wanted = {query: run.get(query, {}) for query in qrels}
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    for metric in ir_measures.iter_calc(parsed, qrels, wanted):
        found[str(metric.measure)][metric.query_id] = float(metric.value)
    return found


def p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the two-sided p of a paired randomisation test: do the signs of the deltas matter?"""
    try:
        from scipy.stats import permutation_test
    except ImportError:
        raise InvalidRequest(_MISSING, "baseline") from None
    if len(before) < 2 or np.array_equal(before, after):
        return 1.0  # signs cannot matter; scipy refuses the one and warns of the other
    found = permutation_test(
        (np.asarray(after), np.asarray(before)),
        lambda new, old, axis: np.mean(new - old, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_ROUNDS,
        batch=_BLOCK,
        rng=0,
    )
    return float(found.pvalue)


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
    pages = {"--per-query": options.per_query, "--html": options.html}
    try:
        for option, path in pages.items():
            if path:
                refuse_unwritable(path, option)
        qrels = read_qrels(options.qrels)
        after = evaluate(read_run(options.run), qrels, options.measures)
        before = None
        if options.baseline or options.baseline_column:
            baseline = read_run(options.baseline or options.run, options.baseline_column)
            before = evaluate(baseline, qrels, options.measures)
        summary = compare(after, before)
        text = json.dumps(summary) if options.json else as_text(summary, len(qrels))
        sys.stdout.write(text + "\n")
        for option, path in pages.items():
            if path:
                page = option == "--html"
                body = as_page(summary, after, before) if page else per_query(after, before)
                with writing(path, option):
                    path.write_text(body, encoding="utf-8")
    except (RerankError, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
