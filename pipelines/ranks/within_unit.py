"""Ranks inside one unit, and the unit's output rows. Pure; it reads and writes no files.

Pairs keep their rows in input order and gain score and rank. Nested rows keep their order too;
inside each, the candidates are sorted, best first, and each struct gains score and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.columns import ColumnNames, Shape
from pipelines.inputs.ids import Column, id_values, plain_ids
from pipelines.inputs.pairs import UnitPairs, one_list
from pipelines.ranks.moves import InputOrder, Ints, input_order, moves
from rerank_core.types import Float32s


@dataclass(frozen=True, slots=True)
class RankedUnit:
    """The output rows of a unit, and what a later merge of its queries needs.

    `raw`, `query` (an index into `queries`), `row` (the input's, in the unit) and `order` have one
    entry per row of `table`; they are empty for the nested shape, whose queries are complete.
    `moved` counts how far ranks lie from the input's order.
    """

    table: pa.Table
    pairs_out: int
    raw: Float32s
    query: Ints
    queries: list[Any]
    row: Ints
    order: InputOrder
    moved: dict[str, list[int]]


def ranks_within(groups: Ints, raw: Float32s) -> npt.NDArray[np.int32]:
    """Return each entry's rank within its group, from 1: higher raw first, ties by position."""
    order = np.lexsort((-raw, groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    counts = np.diff(np.r_[starts, len(groups)])
    ranks = np.empty(len(groups), dtype=np.int32)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, counts) + 1
    return ranks


def rank_unit(
    table: pa.Table,
    found: UnitPairs,
    raw: Float32s,
    added: Sequence[tuple[str, Column]],
    *,
    shape: Shape,
    names: ColumnNames,
    top_k: int | None,
) -> RankedUnit:
    """Return the unit's output. `raw` decides the order, `added` are columns that come with it.

    All have one entry per pair of `found`; a pair whose raw score is NaN is left out.
    """
    good = np.flatnonzero(np.isfinite(raw))
    rows = np.asarray(found.row, dtype=np.int64)[good]
    entries = np.asarray(found.entry, dtype=np.int64)[good]
    if shape == "nested":
        ranks = ranks_within(rows, raw[good])
        kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
        moved = moves(input_order(rows).place[kept], ranks[kept], raw[good][kept])
        order = kept[np.lexsort((ranks[kept], rows[kept]))]
        new = _with_rank(added, names, ranks[order], good[order])
        out = nested_rows(table, names, found.rows_aside, (rows[order], entries[order]), new)
        none = np.empty(0, dtype=np.int64)
        scores, nothing = np.empty(0, dtype=np.float32), InputOrder(none, none)
        return RankedUnit(out, len(order), scores, none, [], none, nothing, moved)
    codes, queries = query_codes(table[names.query_id], rows)
    ranks = ranks_within(codes, raw[good])
    kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
    out = table.take(rows[kept])
    for name, values in _with_rank(added, names, ranks[kept], good[kept]):
        out = out.append_column(pa.field(name, values.type), values)
    place, of = (values[kept] for values in input_order(codes))
    raw = raw[good][kept]
    moved = moves(place, ranks[kept], raw)
    before = InputOrder(place, of)
    return RankedUnit(out, len(kept), raw, codes[kept], queries, rows[kept], before, moved)


def _with_rank(
    added: Sequence[tuple[str, Column]], names: ColumnNames, ranks: Any, places: Ints
) -> list[tuple[str, Column]]:
    """Return the added columns at `places`, the rank behind the first of them."""
    taken = [(name, values.take(pa.array(places))) for name, values in added]
    return [*taken[:1], (names.rank, pa.array(ranks, pa.int32())), *taken[1:]]


def query_codes(column: Column, rows: Ints) -> tuple[Ints, list[Any]]:
    """Return the queries of these rows of a column of ids, as indices into a list of them."""
    encoded = plain_ids(column.take(rows)).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), id_values(encoded.dictionary)


def nested_rows(
    table: pa.Table,
    names: ColumnNames,
    rows_aside: set[int],
    chosen: tuple[Ints, Ints],
    new: list[tuple[str, Column]],
) -> pa.Table:
    """Return nested rows, without those set aside, with other candidates and more about them.

    `chosen` has each candidate's row, ascending, and its place among all candidates; `new` has
    columns with a value for each.
    """
    rows, entries = chosen
    lists = one_list(table[names.candidates])
    structs = lists.values.take(pa.array(entries))
    kind = structs.type
    fields = [kind.field(i) for i in range(kind.num_fields)]
    structs = pa.StructArray.from_arrays(
        [*structs.flatten(), *[values for _, values in new]],
        fields=[*fields, *[pa.field(name, values.type) for name, values in new]],
    )
    rows_kept = np.array(
        [row for row in range(table.num_rows) if row not in rows_aside], dtype=np.int64
    )
    counts = np.bincount(rows, minlength=table.num_rows)[rows_kept]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    new_lists = _list_like(lists, offsets, structs)
    place = table.schema.get_field_index(names.candidates)
    out = table.take(rows_kept)
    return out.set_column(place, pa.field(names.candidates, new_lists.type), new_lists)


def _list_like(lists: Column, offsets: Ints, values: Column) -> Column:
    item = pa.field(lists.type.value_field.name, values.type, lists.type.value_field.nullable)
    if pa.types.is_large_list(lists.type):
        kind: pa.DataType = pa.large_list(item)
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, type=kind)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=pa.list_(item))


def keep_columns(
    table: pa.Table, columns: Sequence[str] | None, names: ColumnNames, added: set[str]
) -> pa.Table:
    """Drop input columns that are not named; what was `added` and the candidates always stay.

    `candidates.doc_id` keeps that field of the candidates and drops their other input fields.
    """
    if columns is None:
        return table
    always = added | {names.candidates}
    out = table.select([name for name in table.schema.names if name in always or name in columns])
    prefix = names.candidates + "."
    inner = {name.removeprefix(prefix) for name in columns if name.startswith(prefix)}
    if not inner or names.candidates not in out.schema.names:
        return out
    lists = one_list(out[names.candidates])
    kind = lists.values.type
    wanted = [i for i in range(kind.num_fields) if kind.field(i).name in inner | added]
    structs = pa.StructArray.from_arrays(
        [lists.values.field(i) for i in wanted], fields=[kind.field(i) for i in wanted]
    )
    new_lists = _list_like(lists, lists.offsets.to_numpy(), structs)
    place = out.schema.get_field_index(names.candidates)
    return out.set_column(place, pa.field(names.candidates, new_lists.type), new_lists)
