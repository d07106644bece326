"""Ids of any type: compared as values, shown as text. It does not know what they name."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Column = Any


def plain_ids(column: Column) -> Column:
    """Return ids as a column that can be grouped: without dictionaries, views and extensions."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_ids(column.cast(kind.storage_type))
    if pa.types.is_dictionary(kind):
        return plain_ids(column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    return column


def id_values(column: Column) -> list[Any]:
    """Return ids as values that can be compared; bytes where one is not UTF-8."""
    column = plain_ids(column)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(pa.large_binary()).to_pylist())


def id_text(value: Any) -> str:
    """Return an id as people write it: UUIDs with dashes, other bytes in hex, times in ISO 8601."""
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value)) if len(value) == 16 else value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def text_of_id(table: pa.Table, column: str, row: int) -> str | None:
    """Return an id as text for the account of rows set aside; None for null or undecodable."""
    try:
        value = pc.take(table[column], pa.array([row])).to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return None if value is None else id_text(value)
