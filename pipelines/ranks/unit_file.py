"""Writes what came of a unit: rows, those set aside, and beside the rows what later steps need."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.commits.quarantine import aside_table
from pipelines.engine import JobContext
from pipelines.inputs.ids import id_values
from pipelines.inputs.pairs import Aside
from pipelines.inputs.units import Unit
from pipelines.ranks.parquet_file import write_file
from pipelines.ranks.rows import Copies, scored_rows
from pipelines.ranks.within_unit import RankedUnit, keep_columns


def write_unit(
    context: JobContext,
    unit: Unit,
    given: tuple[str, pa.Table],
    ranked: RankedUnit,
    aside: list[tuple[str, Aside]],
    kept: bytes | None,
) -> dict[str, Any]:
    """Write the files of a unit and return their descriptions for its record.

    `given` are its input file and its rows there; `kept` are its scores for later jobs, if any.
    """
    config, folder, (path, rows) = context.config, context.folder, given
    added = set(config.added_columns.values())
    table = keep_columns(ranked.table, config.columns, config.names, added)
    if context.joined and config.columns is None:
        table = table.drop_columns([config.names.query, config.names.text])
    out: dict[str, Any] = {"data": None, "aside": None}
    if table.num_rows:
        beside: dict[str, bytes] = {}
        if context.buckets or (config.keep_scores and context.shape == "pairs"):
            beside["beside"] = _scores_for_ranks(context, unit, ranked)
        if config.keep_scores and kept is not None:
            beside["scored"] = kept
        out["data"] = write_file(folder, unit.name, [table], lambda: beside)
    if aside:
        lines = aside_table(aside, rows, unit, path, context.shape, config.names)
        out["aside"] = write_file(folder, unit.name, [lines], place="quarantine")
    return out


def _scores_for_ranks(context: JobContext, unit: Unit, ranked: RankedUnit) -> bytes:
    config, copies = context.config, None
    if config.duplicates != "keep":
        ids = id_values(ranked.table[config.names.doc_id])
        copies = Copies(ids, ranked.row + unit.start)
    rows = ranked.query, ranked.queries, ranked.raw, ranked.order
    return scored_rows(*rows, copies).tobytes()
