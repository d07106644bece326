"""Reads slices on CPU tasks and sends each unit on as one row, so that nothing can cut or join it.

A unit's row has its description and its rows as Arrow bytes. It does not know what is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import reason_of
from pipelines.inputs.joins import Texts, join_texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.reading import read_units
from pipelines.inputs.units import Slice, Unit, slice_from_json, unit_name
from pipelines.retries import retried
from pipelines.stages.failures import failure_line
from rerank_core import InvalidRequest, RerankError

_UNIT_ROW_TYPES: dict[str, pa.DataType] = {
    "unit": pa.string(),
    "file": pa.string(),
    "rows": pa.large_binary(),
    "bad": pa.string(),
    "failure": pa.string(),
}
_UNIT_ROW = pa.schema(_UNIT_ROW_TYPES)


def slice_row(piece: Slice, file: InputFile) -> dict[str, str]:
    """Return the row that `read_slice` takes, with a name, and for people where its units lie."""
    where = f"{file.given}, rows {piece.units[0].start:,} to {piece.units[-1].stop:,}"
    row = {"slice": json.dumps(asdict(piece)), "file": json.dumps(file.as_json())}
    return row | {"name": piece.units[0].name, "where": where}


def read_slice(
    batch: Any,
    config: RerankJobConfig,
    texts: Texts | None = None,
    schema: pa.Schema | None = None,
) -> Iterator[pa.Table]:
    """Decode slices, look up their texts where they have none, and yield one row per unit.

    A unit that cannot be read has `bad` and no rows. Failures of the storage itself are
    tried again, and never taken for bad files.
    """
    for row in batch.to_pylist():
        piece, file = (
            slice_from_json(json.loads(row["slice"])),
            InputFile(**json.loads(row["file"])),
        )
        source = _Source(piece, file, config, schema)
        while source.left:
            try:
                unit, rows = retried(source.next_unit, file.path)
            except PermissionError:
                raise InvalidRequest(f"{file.given}: no permission to read it", "input") from None
            except (pa.ArrowException, OSError) as error:
                for unit in source.left:
                    yield _unit_row(unit, file.given, None, reason_of(error))
                break
            if texts:
                rows = join_texts(rows, texts, config.names)
            yield _unit_row(unit, file.given, _to_bytes(rows), "")


def slice_items(
    groups: list[list[Slice]], files: list[InputFile], name: Callable[[int], str] = unit_name
) -> list[dict[str, str]]:
    """Return an item of a step for each group of slices; `read_tables` reads it."""
    return [
        {"name": name(number), "slices": json.dumps([slice_row(p, files[p.file]) for p in group])}
        for number, group in enumerate(groups)
    ]


def read_tables(
    item: dict[str, Any],
    config: RerankJobConfig,
    texts: Texts | None = None,
    schema: pa.Schema | None = None,
) -> Iterator[tuple[Unit, pa.Table]]:
    """Yield units of an item's slices and their rows; what cannot be read is left to scoring."""
    given = pa.Table.from_pylist(json.loads(item["slices"]))
    for row in read_slice(given, config, texts, schema):
        if not row["bad"][0].as_py():
            unit = Unit(**json.loads(row["unit"][0].as_py()))
            yield unit, pa.ipc.open_stream(row["rows"][0].as_buffer()).read_all()


class _Source:
    """The units of a slice, one after the other; after an error it begins where it stopped."""

    def __init__(
        self, piece: Slice, file: InputFile, config: RerankJobConfig, schema: pa.Schema | None
    ) -> None:
        self._piece, self._file, self._config, self._schema = piece, file, config, schema
        self._units: Iterator[tuple[Unit, pa.Table]] | None = None
        self.left = list(piece.units)

    def next_unit(self) -> tuple[Unit, pa.Table]:
        """Return the next unit and its rows."""
        if self._units is None:
            piece = replace(self._piece, units=tuple(self.left))
            self._units = read_units(piece, self._file, self._config, self._schema)
        try:
            unit, rows = next(self._units)
        except BaseException:
            self._units = None
            raise
        self.left.remove(unit)
        return unit, rows


def _unit_row(unit: Unit, path: str, rows: pa.Buffer | None, bad: str) -> pa.Table:
    body = rows if rows is not None else pa.py_buffer(b"")
    ends = pa.array([0, body.size], pa.int64()).buffers()[1]
    columns = [
        pa.array([json.dumps(asdict(unit))]),
        pa.array([path]),
        # Without a copy: a unit may be large.
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, body]),
        pa.array([bad]),
        pa.array([""]),
    ]
    return pa.table(columns, schema=_UNIT_ROW)


def failed_row(error: RerankError) -> pa.Table:
    """Return the row that ends the job with this error, in the place of a unit."""
    row = {"unit": "", "file": "", "rows": b"", "bad": "", "failure": failure_line(error)}
    return pa.Table.from_pylist([row], schema=_UNIT_ROW)


def _to_bytes(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()
