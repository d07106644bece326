"""Writes tables as one Parquet file, in row groups that fit in memory, with more bytes beside them.

It does not know what the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.commits.records import JobFolder

# Of a row group, in memory: what a task holds at once, besides the file.
_GROUP_BYTES = 128 << 20


def write_file(
    folder: JobFolder,
    name: str,
    tables: Iterable[pa.Table],
    beside: Callable[[], Mapping[str, bytes]] = dict,
    place: str = "data",
) -> dict[str, Any] | None:
    """Write the tables, one at least, as one attempt file; return its description for the record.

    What `beside` says when the tables end lies beside the rows, before the footer, where readers of
    Parquet do not see it: it costs no file of its own. The description says where, by its name.
    None where there is nothing to write.
    """
    rest = iter(tables)
    sink, first = pa.BufferOutputStream(), next(rest)
    with pq.ParquetWriter(sink, first.schema, compression="zstd") as writer:
        rows = 0
        for table in _row_groups(chain([first], rest)):
            writer.write_table(table)
            rows += table.num_rows
        places = {}
        for kind, body in beside().items():
            start = sink.tell()
            sink.write(body)
            places[kind] = [start, sink.tell()]
    if not rows and not places:
        return None
    made = folder.write_bytes(place, name, ".parquet", sink.getvalue())
    return {**made, "rows": rows, **places}


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        if table.num_rows:
            held.append(table)
        if sum(one.nbytes for one in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
