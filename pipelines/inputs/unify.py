"""One schema for files whose columns differ only in how they are laid out, none for others.

What can be read without loss is read: order of columns, nullability, kinds of strings, widths of
numbers, units of time, columns that are all null. It knows schemas and reads no rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from rerank_core import InvalidRequest

_UNITS = ("s", "ms", "us", "ns")
# A frame that was filtered or sorted has them as a column, others as a range in the metadata.
_ROW_NUMBERS = re.compile(r"__index_level_\d+__$")
_WAY_OUT = "give --columns without it, or write the files alike"
_ALIKE = "a job needs it of all files: write them alike, or rank them apart"


class _Differ(Exception):
    """Two types that no type holds both of."""


def unify(
    schemas: Sequence[tuple[str, pa.Schema]],
    needed: Callable[[str], bool],
    always: Collection[str] = (),
) -> pa.Schema:
    """Return the columns that are needed, of the types that hold those of all files.

    `schemas` pairs each file's path with its schema; the order is the first file's. Columns in
    `always` cannot be left out; row numbers of pandas that only some files have are. Raises
    InvalidRequest that names two files, the column, both types and the way out.
    """
    distinct: dict[bytes, tuple[str, pa.Schema]] = {}
    for path, schema in schemas:
        distinct.setdefault(bytes(schema.serialize()), (path, schema))
    first_path, first = next(iter(distinct.values()))
    shared = set(first.names).intersection(*(schema.names for _, schema in distinct.values()))
    fields = {}
    for path, schema in distinct.values():
        _refuse_twice(path, schema, needed)
        for name in _missing(first, schema, needed):
            if _ROW_NUMBERS.match(name):
                continue
            with_it, without = (first_path, path) if name in first.names else (path, first_path)
            raise InvalidRequest(
                f"file {with_it} has a column {name}, file {without} has none;"
                f" {_ALIKE if name in always else _WAY_OUT}",
                "input",
            )
    for field in first:
        if needed(field.name) and field.name in shared:
            way_out = _ALIKE if field.name in always else _WAY_OUT
            fields[field.name] = _of_all(field.name, list(distinct.values()), way_out)
    metadata: Any = first.metadata
    return pa.schema(list(fields.values()), metadata=metadata)


def _missing(first: pa.Schema, other: pa.Schema, needed: Callable[[str], bool]) -> list[str]:
    return sorted(name for name in set(first.names) ^ set(other.names) if needed(name))


def _refuse_twice(path: str, schema: pa.Schema, needed: Callable[[str], bool]) -> None:
    twice = {name for name in schema.names if schema.names.count(name) > 1 and needed(name)}
    if twice:
        raise InvalidRequest(
            f"file {path} has the column {min(twice)} twice; only the writer knows which is meant:"
            " rename one, or give --columns without it",
            "input",
        )


def _of_all(name: str, schemas: Sequence[tuple[str, pa.Schema]], way_out: str) -> Any:
    path, nullable = schemas[0][0], False
    kind: pa.DataType = pa.null()
    for other_path, schema in schemas:
        field = schema.field(name)
        nullable |= field.nullable
        try:
            wider = common(kind, plain(field.type))
        except _Differ:
            raise InvalidRequest(
                f"file {path} has {name}: {kind}, file {other_path} has {name}: {field.type};"
                f" {way_out}",
                "input",
            ) from None
        if wider != kind:
            path, kind = other_path, wider
    return pa.field(name, kind, nullable or pa.types.is_null(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without views, which are only a layout."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pa.types.is_list_view(kind) or pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain(kind.value_type)))
    if pa.types.is_large_list_view(kind) or pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain(kind.value_type)))
    return kind


def common(one: pa.DataType, two: pa.DataType) -> pa.DataType:
    """Return the type that holds every value of both; raises _Differ if there is none."""
    types = pa.types
    if one == two or types.is_null(two):
        return one
    if types.is_null(one):
        return two
    if types.is_dictionary(one) or types.is_dictionary(two):
        return common(*(k.value_type if types.is_dictionary(k) else k for k in (one, two)))
    if _both(types.is_string, types.is_large_string, one, two):
        return pa.large_string()
    if _both(types.is_binary, types.is_large_binary, one, two):
        return pa.large_binary()
    if types.is_integer(one) and types.is_integer(two):
        return _whole_number(one, two)
    if types.is_floating(one) and types.is_floating(two):
        return max(one, two, key=lambda kind: kind.bit_width)
    if types.is_timestamp(one) and types.is_timestamp(two) and one.tz == two.tz:
        return pa.timestamp(max(one.unit, two.unit, key=_UNITS.index), one.tz)
    if types.is_duration(one) and types.is_duration(two):
        return pa.duration(max(one.unit, two.unit, key=_UNITS.index))
    if types.is_time(one) and types.is_time(two):
        unit: Any = max(one.unit, two.unit, key=_UNITS.index)
        return pa.time32(unit) if unit in _UNITS[:2] else pa.time64(unit)
    if types.is_decimal(one) and types.is_decimal(two):
        return _decimal(one, two)
    return _nested(one, two)


def _both(small: Callable[..., bool], large: Callable[..., bool], *kinds: pa.DataType) -> bool:
    return all(small(kind) or large(kind) for kind in kinds)


def _whole_number(one: pa.DataType, two: pa.DataType) -> pa.DataType:
    signed, unsigned = pa.types.is_signed_integer, pa.types.is_unsigned_integer
    if signed(one) == signed(two):
        return max(one, two, key=lambda kind: kind.bit_width)
    (natural,) = (kind for kind in (one, two) if unsigned(kind))
    (whole,) = (kind for kind in (one, two) if signed(kind))
    width = max(whole.bit_width, 2 * natural.bit_width)
    if width > 64:
        raise _Differ
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[width]


def _decimal(one: Any, two: Any) -> pa.DataType:
    scale = max(one.scale, two.scale)
    digits = max(one.precision - one.scale, two.precision - two.scale) + scale
    if digits > 76:
        raise _Differ
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _nested(one: Any, two: Any) -> pa.DataType:
    types = pa.types
    if types.is_struct(one) and types.is_struct(two):
        names = {field.name for field in one}
        if names != {field.name for field in two} or len(names) != one.num_fields:
            raise _Differ
        return pa.struct([pa.field(f.name, common(f.type, two.field(f.name).type)) for f in one])
    one, two = (pa.list_(k.value_field) if types.is_fixed_size_list(k) else k for k in (one, two))
    if _both(types.is_list, types.is_large_list, one, two):
        item = one.value_field.with_type(common(one.value_type, two.value_type))
        large = types.is_large_list(one) or types.is_large_list(two)
        return (
            pa.large_list(item.with_nullable(True)) if large else pa.list_(item.with_nullable(True))
        )
    if types.is_map(one) and types.is_map(two):
        return pa.map_(common(one.key_type, two.key_type), common(one.item_type, two.item_type))
    raise _Differ


def fitted(rows: pa.Table, schema: pa.Schema | None, path: str) -> pa.Table:
    """Return the rows with the columns and types of the schema; InvalidRequest if one is lost."""
    if schema is None or rows.schema.equals(schema):
        return rows
    columns = []
    for field in schema:
        try:
            columns.append(rows[field.name].cast(field.type))
        except pa.ArrowInvalid as error:
            raise InvalidRequest(
                f"file {path}: column {field.name} has a value that {field.type}, which other files"
                f" need, cannot hold ({str(error).split(':')[0][:80]}); {_WAY_OUT}",
                "input",
            ) from None
    return pa.table(columns, schema=schema)
