"""The account of one scored unit: counts, reasons, histograms. Pure; it writes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.columns import ColumnNames, Shape
from pipelines.commits.records import BALANCE
from pipelines.inputs.pairs import Aside, UnitPairs, one_list
from pipelines.inputs.units import Unit
from pipelines.ranks.within_unit import RankedUnit
from rerank_core import activate
from rerank_core.types import PairScores


def histograms(scores: PairScores) -> dict[str, list[int]]:
    """Return counts of sigmoid scores in 20 equal steps, and of tokens by powers of two."""
    shown = activate(scores.raw, "sigmoid")
    good = np.isfinite(shown)
    tokens = np.log2(np.maximum(scores.tokens[good], 1))
    return {
        "score_histogram": np.histogram(shown[good], 20, (0, 1))[0].tolist(),
        "token_histogram": np.histogram(np.clip(tokens, 0, 14), 28, (0, 14))[0].tolist(),
    }


def unreadable(line: dict[str, str], rows: int) -> dict[str, Any]:
    """Return the record of a unit whose file cannot be read; `line` says which and why."""
    aside = ("rows_in", "pairs_in", "rows_quarantined", "pairs_quarantined")
    counts = dict.fromkeys(BALANCE, 0) | dict.fromkeys(aside, rows)
    record: dict[str, Any] = {"counts": counts, "reasons": {line["bad"]: rows}, "data": None}
    return record | {"file": line["file"], "bad": line["bad"]}


def failed_pairs(
    found: UnitPairs,
    scores: PairScores,
    shape: Shape,
    rows: pa.Table,
    names: ColumnNames,
) -> list[Aside]:
    """Return the pairs that the scorer gave no finite score, as rows set aside."""
    bad = {int(i): "non_finite_score" for i in np.flatnonzero(~np.isfinite(scores.raw))}
    bad.update(scores.errors)
    if shape == "pairs":
        return [Aside(found.row[i], None, reason) for i, reason in bad.items()]
    offsets = one_list(rows[names.candidates]).offsets.to_pylist()
    return [
        Aside(found.row[i], found.entry[i] - offsets[found.row[i]], reason)
        for i, reason in bad.items()
    ]


def unit_counts(
    unit: Unit, found: UnitPairs, scores: PairScores, ranked: RankedUnit, shape: Shape
) -> dict[str, int]:
    """Return the account of a unit: what went in, came out, was cut by top_k or set aside."""
    failed = int((~np.isfinite(scores.raw)).sum())
    pairs_quarantined = found.pairs_in - len(found.pairs) + failed
    rows_quarantined = len(found.rows_aside) + (failed if shape == "pairs" else 0)
    cut = len(found.pairs) - failed - ranked.pairs_out
    return {
        "rows_in": unit.rows,
        "rows_out": ranked.table.num_rows,
        "rows_cut": cut if shape == "pairs" else 0,
        "rows_quarantined": rows_quarantined,
        "pairs_in": found.pairs_in,
        "pairs_out": ranked.pairs_out,
        "pairs_cut": cut,
        "pairs_quarantined": pairs_quarantined,
        "pairs_scored_once": len(found.pairs),
        "tokens": int(scores.tokens.sum()),
        "truncated": int(scores.truncated.sum()),
        "texts_cut": found.texts_cut,
    }
