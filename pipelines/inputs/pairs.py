"""From a table of one unit to pairs, and which rows cannot even be tried. Pure; reads no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.columns import ColumnNames, Shape
from pipelines.inputs.ids import Column, id_values
from rerank_core.types import QueryDocumentPair

DUPLICATE = "duplicate"
_UNDECODABLE = "\udfff"  # no valid text holds a lone surrogate


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

    def add(self, row: int, entry: int, query: str, text: str, max_chars: int) -> None:
        """Take one pair that can be tried, its texts cut to `max_chars`."""
        self.texts_cut += len(text) > max_chars
        self.pairs.append(QueryDocumentPair(query[:max_chars], text[:max_chars]))
        self.row.append(row)
        self.entry.append(entry)


# A query per row, and why a row's query cannot be used ("" if it can).
_Queries = tuple[list[str | None], list[str]]


def extract(
    table: pa.Table, shape: Shape, names: ColumnNames, max_chars: int, copies: bool = True
) -> UnitPairs:
    """Return the pairs of a unit; rows with a null, blank or undecodable text are set aside.

    Without `copies` so is a document that its query has had already, by their ids.
    """
    queries = _texts(table[names.query])
    ids = _id_problems(table[names.query_id])
    reasons = [no_id or _problem("query", q) for no_id, q in zip(ids, queries, strict=True)]
    if shape == "pairs":
        return _from_pairs(table, names, max_chars, copies, (queries, reasons))
    return _from_nested(table, names, max_chars, copies, (queries, reasons))


def _from_pairs(
    table: pa.Table, names: ColumnNames, max_chars: int, copies: bool, queries: _Queries
) -> UnitPairs:
    found = UnitPairs(pairs_in=table.num_rows)
    texts = _texts(table[names.text])
    again = [""] * len(texts)
    if not copies:
        again = _copies(id_values(table[names.query_id]), id_values(table[names.doc_id]))
    for row, (query, reason) in enumerate(zip(*queries, strict=True)):
        text = texts[row]
        problem = reason or _problem("text", text) or again[row]
        if problem or query is None or text is None:
            found.aside.append(Aside(row, None, problem))
            found.rows_aside.add(row)
        else:
            found.add(row, row, query, text, max_chars)
    return found


def _from_nested(
    table: pa.Table, names: ColumnNames, max_chars: int, copies: bool, queries: _Queries
) -> UnitPairs:
    lists = one_list(table[names.candidates])
    offsets = lists.offsets.to_pylist()
    found = UnitPairs(pairs_in=offsets[-1] - offsets[0])
    texts = _texts(lists.values.field(names.text))
    again = [""] * len(texts)
    if not copies:
        parents: Column = pc.list_parent_indices(lists)
        again = _copies(parents.to_pylist(), id_values(lists.values.field(names.doc_id)))
    missing = lists.is_null().to_pylist()
    for row, (query, reason) in enumerate(zip(*queries, strict=True)):
        reason = reason or ("null_candidates" if missing[row] else "")
        if reason:
            found.aside.append(Aside(row, None, reason))
            found.rows_aside.add(row)
            continue
        for entry in range(offsets[row], offsets[row + 1]):
            text = texts[entry]
            problem = _problem("text", text) or again[entry]
            if problem or query is None or text is None:
                found.aside.append(Aside(row, entry - offsets[row], problem))
            else:
                found.add(row, entry, query, text, max_chars)
    return found


def _copies(groups: list[Any], ids: list[Any]) -> list[str]:
    """Return DUPLICATE for each id that its group has had before; no id is nobody's copy."""
    seen: set[tuple[Any, Any]] = set()
    found = []
    for key in zip(groups, ids, strict=True):
        found.append(DUPLICATE if key in seen else "")
        if key[1] is not None:
            seen.add(key)
    return found


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
