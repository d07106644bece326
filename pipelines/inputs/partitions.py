"""Columns that folders name, as in `lang=en/0.parquet`. It knows paths and reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

import pyarrow as pa

_NULL = "__HIVE_DEFAULT_PARTITION__"
PartitionValue = str | int | None
Partition = tuple[tuple[str, PartitionValue], ...]


def partition_of(folders: Sequence[str]) -> Partition:
    """Return the columns that a file's folders name, all values as text."""
    pairs = (folder.partition("=") for folder in folders)
    return tuple(
        (unquote(name), None if value == _NULL else unquote(value))
        for name, mark, value in pairs
        if name and mark
    )


def typed(partitions: Iterable[Partition]) -> Iterator[Partition]:
    """Yield the partitions, a column numeric where all its values are whole numbers."""
    held = list(partitions)
    texts = {
        name
        for partition in held
        for name, value in partition
        if value is not None and not _is_number(str(value))
    }
    for partition in held:
        yield tuple(
            (name, value if name in texts or value is None else int(value))
            for name, value in partition
        )


def partition_type(value: PartitionValue) -> pa.DataType:
    """Return the type of the column that a partition's folder names."""
    if value is None:
        return pa.null()
    return pa.int64() if isinstance(value, int) else pa.string()


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    plain = text.isascii() and digits.isdecimal() and (digits[0] != "0" or text == "0")
    return plain and len(text) < 18  # 007 is a name
