"""From a table of one unit to pairs, and from scores back to a table. Pure; it reads no files.

Pairs keep their rows in input order and gain score and rank. Nested rows keep their order too;
inside each, the candidates are sorted, best first, and each struct gains score and rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import ColumnNames, Shape
from pipelines.rank_stage import ranks_within
from rerank_core.types import Float32s, QueryDocumentPair

Ints = npt.NDArray[np.int64]
# Arrow arrays of any type; pyarrow's stubs know too little of lists and structs to help here.
Column = Any


class Aside(NamedTuple):
    """A row, or one candidate of a nested row, that gets no score, and why. Never its text."""

    row: int
    candidate: int | None
    reason: str


@dataclass(slots=True)
class UnitPairs:
    """The pairs of a unit. `row[i]` is the row of pair i, `entry[i]` its place in all candidates.

    For the pairs shape both are the same. `aside` lists what cannot even be tried.
    """

    pairs: list[QueryDocumentPair] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    entry: list[int] = field(default_factory=list)
    aside: list[Aside] = field(default_factory=list)
    rows_aside: set[int] = field(default_factory=set)
    pairs_in: int = 0
    texts_cut: int = 0


@dataclass(frozen=True, slots=True)
class RankedUnit:
    """The output rows of a unit, and what a later merge of its queries needs.

    `raw`, `query` (an index into `queries`) and `row` (the input's, in the unit) have one entry per
    row of `table`; they are empty for the nested shape, whose queries are complete.
    """

    table: pa.Table
    pairs_out: int
    raw: Float32s
    query: Ints
    queries: list[Any]
    row: Ints


def extract(
    table: pa.Table, shape: Shape, names: ColumnNames, max_chars: int, copies: bool = True
) -> UnitPairs:
    """Return the pairs of a unit; rows with a null, blank or undecodable text are set aside.

    Without `copies` so is a document that its query has had already, by their ids.
    """
    found = UnitPairs()
    queries = _texts(table[names.query])
    ids = _id_problems(table[names.query_id])
    reasons = [no_id or _problem("query", q) for no_id, q in zip(ids, queries, strict=True)]
    if shape == "pairs":
        found.pairs_in = table.num_rows
        texts = _texts(table[names.text])
        again = [""] * len(texts)
        if not copies:
            again = _copies(id_values(table[names.query_id]), id_values(table[names.doc_id]))
        for row, (reason, query, text) in enumerate(zip(reasons, queries, texts, strict=True)):
            problem = reason or _problem("text", text) or again[row]
            _add(found, row, row, None, problem, query, text, max_chars)
            if found.aside and found.aside[-1].row == row:
                found.rows_aside.add(row)
        return found
    lists = one_list(table[names.candidates])
    offsets = lists.offsets.to_numpy()
    found.pairs_in = int(offsets[-1] - offsets[0])
    texts = _texts(lists.values.field(names.text))
    again = [""] * len(texts)
    if not copies:
        parents: Column = pc.list_parent_indices(lists)
        again = _copies(parents.to_pylist(), id_values(lists.values.field(names.doc_id)))
    missing = lists.is_null().to_pylist()
    for row, (reason, query) in enumerate(zip(reasons, queries, strict=True)):
        reason = reason or ("null_candidates" if missing[row] else "")
        if reason:
            found.aside.append(Aside(row, None, reason))
            found.rows_aside.add(row)
            continue
        for entry in range(int(offsets[row]), int(offsets[row + 1])):
            place = entry - int(offsets[row])
            problem = _problem("text", texts[entry]) or again[entry]
            _add(found, row, entry, place, problem, query, texts[entry], max_chars)
    return found


DUPLICATE = "duplicate"


def _copies(groups: list[Any], ids: list[Any]) -> list[str]:
    """Return DUPLICATE for each id that its group has had before; no id is nobody's copy."""
    seen: set[tuple[Any, Any]] = set()
    found = []
    for key in zip(groups, ids, strict=True):
        found.append(DUPLICATE if key in seen else "")
        if key[1] is not None:
            seen.add(key)
    return found


def _add(
    found: UnitPairs,
    row: int,
    entry: int,
    candidate: int | None,
    problem: str,
    query: str | None,
    text: str | None,
    max_chars: int,
) -> None:
    if problem or query is None or text is None:
        found.aside.append(Aside(row, candidate, problem))
        return
    found.texts_cut += len(text) > max_chars
    found.pairs.append(QueryDocumentPair(query[:max_chars], text[:max_chars]))
    found.row.append(row)
    found.entry.append(entry)


_UNDECODABLE = "\udfff"  # no valid text holds a lone surrogate


def _texts(column: Column) -> list[str | None]:
    """Return the texts; one that is not UTF-8 comes back as _UNDECODABLE."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.large_string() if not _binary(column.type) else pa.large_binary())
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return [_decoded(value) if isinstance(value, bytes) else value for value in values]


def _binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _UNDECODABLE


def id_values(column: Column) -> list[Any]:
    """Return ids as values that can be compared; bytes where one is not UTF-8."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(pa.large_binary()).to_pylist())


def _id_problems(column: Column) -> list[str]:
    """Return why a row's query_id cannot be ranked by, or an empty text."""
    try:
        return ["null_query_id" if value is None else "" for value in column.to_pylist()]
    except UnicodeDecodeError:
        return [
            _problem("query_id", text) if text in (None, _UNDECODABLE) else ""
            for text in _texts(column)
        ]


def _problem(name: str, text: str | None) -> str:
    if text is None:
        return f"null_{name}"
    if text == _UNDECODABLE:
        return f"{name}_not_utf8"
    return "" if text.strip() else f"empty_{name}"


def one_list(column: Column) -> Column:
    """Return a list column as one array."""
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def rank_unit(
    table: pa.Table,
    shape: Shape,
    names: ColumnNames,
    found: UnitPairs,
    raw: Float32s,
    added: Sequence[tuple[str, Column]],
    top_k: int | None,
) -> RankedUnit:
    """Return the unit's output. `raw` decides the order, `added` are columns that come with it.

    All have one entry per pair of `found`; a pair whose raw score is NaN is left out.
    """
    good = np.flatnonzero(np.isfinite(raw))
    rows = np.asarray(found.row, dtype=np.int64)[good]
    entries = np.asarray(found.entry, dtype=np.int64)[good]
    if shape == "nested":
        added = [(name, values.take(pa.array(good))) for name, values in added]
        return _rank_nested(table, names, found, rows, entries, raw[good], added, top_k)
    codes, queries = _query_codes(table[names.query_id], rows)
    ranks = ranks_within(codes, raw[good])
    kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
    out = table.take(rows[kept])
    for name, values in _with_rank(added, names, ranks[kept], good[kept]):
        out = out.append_column(pa.field(name, values.type), values)
    return RankedUnit(out, len(kept), raw[good][kept], codes[kept], queries, rows[kept])


def _with_rank(
    added: Sequence[tuple[str, Column]], names: ColumnNames, ranks: Any, places: Ints
) -> list[tuple[str, Column]]:
    """Return the added columns at `places`, the rank behind the first of them."""
    taken = [(name, values.take(pa.array(places))) for name, values in added]
    return [*taken[:1], (names.rank, pa.array(ranks, pa.int32())), *taken[1:]]


def _query_codes(column: Column, rows: Ints) -> tuple[Ints, list[Any]]:
    encoded = column.take(rows).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _rank_nested(
    table: pa.Table,
    names: ColumnNames,
    found: UnitPairs,
    rows: Ints,
    entries: Ints,
    raw: Float32s,
    added: Sequence[tuple[str, Column]],
    top_k: int | None,
) -> RankedUnit:
    ranks = ranks_within(rows, raw)
    kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
    order = kept[np.lexsort((ranks[kept], rows[kept]))]
    lists = one_list(table[names.candidates])
    structs = lists.values.take(pa.array(entries[order]))
    kind = structs.type
    fields = [kind.field(i) for i in range(kind.num_fields)]
    new = _with_rank(added, names, ranks[order], order)
    structs = pa.StructArray.from_arrays(
        [*structs.flatten(), *[values for _, values in new]],
        fields=[*fields, *[pa.field(name, values.type) for name, values in new]],
    )
    rows_kept = np.array(
        [row for row in range(table.num_rows) if row not in found.rows_aside], dtype=np.int64
    )
    counts = np.bincount(rows[order], minlength=table.num_rows)[rows_kept]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    new_lists = _list_like(lists, offsets, structs)
    place = table.schema.get_field_index(names.candidates)
    out = table.take(rows_kept)
    out = out.set_column(place, pa.field(names.candidates, new_lists.type), new_lists)
    none = np.empty(0, dtype=np.int64)
    return RankedUnit(out, len(order), np.empty(0, dtype=np.float32), none, [], none)


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


def text_of_id(table: pa.Table, column: str, row: int) -> str | None:
    """Return an id as text for the account of rows set aside; None for null or undecodable."""
    try:
        value = pc.take(table[column], pa.array([row])).to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return None if value is None else str(value)
