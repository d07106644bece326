"""How the columns of one file are those of its table: by field id where it has ids, else by the
name in files that the table gives them.

What was renamed, added, dropped or put in another place since a file was written is found again.
It knows schemas and reads no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipelines.inputs.lake.snapshot import EXPORT
from rerank_core import InvalidRequest

_ID, _PHYSICAL = b"PARQUET:field_id", b"delta.columnMapping.physicalName"


def columns_of_table(
    path: str, file: pa.Schema, table: pa.Schema, partition: Sequence[tuple[str, Any]]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, Any], ...], pa.Schema]:
    """Return the table's columns that the file has, with its names of them; the others, with what
    the partition says of them or null; and the types of all, in the table's order.

    Raises InvalidRequest where a field inside a column was renamed, dropped or added again.
    """
    own = _as_in_table(path, file, table)
    values = dict(partition)
    fields, others = [], []
    for field in table:
        if field.name in own:
            mine = file.field(own[field.name]).with_name(field.name)
            fields.append(mine.with_type(_in_zone(mine.type, field.type)))
            continue
        fields.append(pa.field(field.name, field.type if field.name in values else pa.null()))
        others.append((field.name, values.get(field.name)))
    return tuple(own.items()), tuple(others), pa.schema(fields)


def _in_zone(mine: Any, table: Any) -> pa.DataType:
    """Return the file's type, a time in the table's zone: INT96 cannot say that it is in UTC."""
    times = pa.types.is_timestamp(mine) and pa.types.is_timestamp(table)
    return pa.timestamp(mine.unit, table.tz) if times and mine.tz is None else mine


def typed_by_tables(schema: pa.Schema, tables: Iterable[pa.Schema | None]) -> pa.Schema:
    """Return the schema, columns that no file has a value of with the type that a table gives."""
    known = {field.name: field for table in tables for field in table or ()}
    fields = [
        field.with_type(known[field.name].type)
        if pa.types.is_null(field.type) and field.name in known
        else field
        for field in schema
    ]
    metadata: Any = schema.metadata
    return pa.schema(fields, metadata=metadata)


def _as_in_table(path: str, file: pa.Schema, table: pa.Schema) -> dict[str, str]:
    """Return the file's name of each column of the table that the file has."""
    # Files that were written elsewhere and added to the table have no ids: names are all there is.
    by_id = {number: field for field in file if (number := _id(field)) is not None}
    found = {}
    for field in table:
        number = _id(field)
        if by_id and number is not None:
            mine = by_id.get(number)
        else:
            name = _name(field)
            mine = file.field(name) if name in file.names else None
        if mine is None:
            continue
        if inner := _moved(mine.type, field.type):
            raise InvalidRequest(
                f"file {path}: in column {field.name} the field {inner} has another name, or is"
                f" another one, than in the table now: rewrite the file, or {EXPORT}",
                "input",
            )
        found[field.name] = mine.name
    return found


def _id(field: Any) -> int | None:
    value = (field.metadata or {}).get(_ID)
    return None if value is None else int(value)


def _name(field: Any) -> str:
    """Return what files call a column, which may differ from what the table calls it."""
    return str((field.metadata or {}).get(_PHYSICAL, field.name.encode()).decode())


def _moved(file: Any, table: Any) -> str | None:
    """Return the name of a field of the table that is another one, by id or name, in the file."""
    if _is_list(file) and _is_list(table):
        return _moved(file.value_type, table.value_type)
    if pa.types.is_map(file) and pa.types.is_map(table):
        return _moved(file.item_type, table.item_type)
    if not (pa.types.is_struct(file) and pa.types.is_struct(table)):
        return None
    names = {field.name: field for field in file}
    by_id = {number: field for field in file if (number := _id(field)) is not None}
    for field in table:
        mine = by_id.get(_id(field) or 0) if by_id else names.get(_name(field))
        if mine is None and field.name in names:
            return str(field.name)
        if mine is not None and mine.name != field.name:
            return str(field.name)
        if mine is not None and (found := _moved(mine.type, field.type)):
            return found
    return None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
