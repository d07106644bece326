"""One stage of a pipeline: a table in, the same rows with scores and ranks out. Writes no files.

A row or candidate that cannot be scored stays, with a reason in the place of a score; only `top_k`
leaves any out. It does not know where tables come from, nor Ray.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.columns import Shape
from pipelines.config import StageConfig
from pipelines.engine import LoadScorer
from pipelines.inputs.ids import Column
from pipelines.inputs.pairs import extract, one_list
from pipelines.inputs.schemas import check_stage, shape_of, with_fields
from pipelines.ranks.rows import hashes
from pipelines.ranks.tables import (
    BUCKET,
    BUCKETS,
    FINGERPRINT,
    RAW,
    rank_column,
    rank_pairs,
    ranks_of,
    stamped,
    unranked_last,
    within,
)
from pipelines.ranks.within_unit import nested_rows, query_codes
from pipelines.stages.account import failed_pairs
from pipelines.stages.scoring import added_values, score_distinct, warm
from rerank_core import load_scorer
from rerank_core.calibration import Calibration

# Rows that are scored in one call where nothing else is said.
PAIRS_PER_CALL, NESTED_PER_CALL = 2048, 32


class RerankTables:
    """Reranks tables, one per call, each with all the rows of its queries."""

    def __init__(self, config: StageConfig, load: LoadScorer = load_scorer) -> None:
        self._config = config
        self._scorer = warm(load(config.scorer))
        path = config.scorer.calibration
        self._calibration = Calibration.load(path, self._fingerprint) if path else None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows in their order, with scores, ranks, reasons and the fingerprint."""
        if not table.num_columns:  # Ray Data's block of nothing
            return table
        if shape_of(table.schema, self._config) == "nested":
            table = with_fields(table, self._config.names)
            return self._in_calls(table, NESTED_PER_CALL, self._nested)
        return rank_pairs(self.scored(table), self._config)

    def scored(self, table: pa.Table) -> pa.Table:
        """Return pairs with all but their ranks, and with what `rank_pairs` needs."""
        if not table.num_columns:
            return table
        return self._in_calls(table, PAIRS_PER_CALL, self._pairs)

    def _in_calls(self, table: pa.Table, usual: int, call: Any) -> pa.Table:
        check_stage(table.schema, self._config)
        size = self._config.batch_rows or usual
        starts = range(0, max(1, table.num_rows), size)
        out = pa.concat_tables([call(table.slice(start, size)) for start in starts])
        return stamped(out, self._fingerprint)

    def _pairs(self, table: pa.Table) -> pa.Table:
        config = self._config
        slots = self._slots(table, "pairs", table.num_rows)
        out = table
        for name, values in slots.added:
            out = out.append_column(name, values)
        reasons = pa.array([slots.reasons.get(row) for row in range(table.num_rows)], pa.string())
        out = out.append_column(config.reason_column, reasons)
        name = config.fingerprint_column or FINGERPRINT
        out = out.append_column(name, self._fingerprints(table.num_rows))
        known = np.flatnonzero(table[config.names.query_id].is_valid())
        codes, queries = query_codes(table[config.names.query_id], known)
        buckets = np.zeros(table.num_rows, np.int32)
        buckets[known] = (hashes(queries)[:, 0] % BUCKETS)[codes]
        return out.append_column(RAW, slots.raw).append_column(BUCKET, pa.array(buckets))

    def _nested(self, table: pa.Table) -> pa.Table:
        config = self._config
        lists = one_list(table[config.names.candidates])
        slots = self._slots(table, "nested", len(lists.values))
        offsets = lists.offsets.to_numpy()
        rows = np.repeat(np.arange(table.num_rows), np.diff(offsets))
        entries = np.arange(offsets[0], offsets[-1])
        there = ~np.asarray(lists.is_null())[rows]
        rows, entries = rows[there], entries[there]
        raw = slots.raw.take(pa.array(entries))
        ranks = ranks_of(rows, raw, np.arange(len(rows)))
        kept = within(ranks, config.top_k)
        order = kept[np.lexsort((unranked_last(ranks[kept]), rows[kept]))]
        values = [(name, column.take(pa.array(entries[order]))) for name, column in slots.added]
        places = zip(entries[order].tolist(), rows[order].tolist(), strict=True)
        why = [slots.reasons.get(entry) or slots.row_reasons.get(row) for entry, row in places]
        new = [
            *values[:1], (config.names.rank, rank_column(ranks[order])), *values[1:],
            (config.reason_column, pa.array(why, pa.string())),
        ]  # fmt: skip
        out = nested_rows(table, config.names, set(), (rows[order], entries[order]), new)
        of_rows = [slots.row_reasons.get(row) for row in range(table.num_rows)]
        out = out.append_column(config.reason_column, pa.array(of_rows, pa.string()))
        if config.fingerprint_column:
            prints = self._fingerprints(table.num_rows)
            out = out.append_column(config.fingerprint_column, prints)
        return out

    def _slots(self, table: pa.Table, shape: Shape, count: int) -> _Slots:
        config = self._config
        found = extract(table, shape, config.names, config.max_text_chars)
        scores = score_distinct(self._scorer.score, found.pairs)
        activation = self._scorer.info.activation
        added = added_values(scores, activation, config.added_columns, self._calibration)
        good = np.flatnonzero(np.isfinite(scores.raw))
        place = np.full(count, -1, np.int64)
        place[np.asarray(found.entry, np.int64)[good]] = good
        index: Column = pa.array(place, mask=place < 0)
        aside = [*found.aside, *failed_pairs(found, scores, shape, table, config.names)]
        nested = shape == "nested"
        offsets = one_list(table[config.names.candidates]).offsets.to_pylist() if nested else ()
        return _Slots(
            pa.array(scores.raw).take(index),
            [(name, values.take(index)) for name, values in added],
            {
                item.row if item.candidate is None else offsets[item.row] + item.candidate:
                item.reason for item in aside if not (nested and item.candidate is None)
            },
            {item.row: item.reason for item in aside if nested and item.candidate is None},
        )  # fmt: skip

    @property
    def _fingerprint(self) -> str:
        return self._scorer.info.fingerprint

    def _fingerprints(self, count: int) -> Column:
        return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [self._fingerprint])


class _Slots(NamedTuple):
    """What has a place for each row of pairs, or for each entry of all lists of candidates."""

    raw: Column
    added: list[tuple[str, Column]]
    reasons: dict[int, str]
    row_reasons: dict[int, str]  # of nested rows that cannot be scored at all
