"""A table of a lake at one version: its columns and files. It does not know which kind it is of."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from rerank_core import InvalidRequest

EXPORT = "export its current rows as Parquet or Delta and give that"


Rows = Callable[[], Iterable[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table: its path or address, bytes, and the columns that only the table knows.

    `rows` reads what is left of it, where the table takes some of its rows away.
    """

    path: str
    size: int
    partition: tuple[tuple[str, str | None], ...] = ()
    rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a table is at `version`; `name` says it for people, `columns` may carry field ids."""

    address: str
    version: int
    name: str
    columns: pa.Schema
    files: list[TableFile]

    def __post_init__(self) -> None:
        if not self.files:
            raise InvalidRequest(f"{self.address}: {self.name} has no rows", "input")


def values_as_text(address: str, values: Iterable[tuple[str, Any]]) -> tuple[Any, ...]:
    """Return values of partition columns as texts that a cast to their type reads back."""
    return tuple((name, _text(f"{address}: partition column {name}", v)) for name, v in values)


def _text(what: str, value: Any) -> str | None:
    if isinstance(value, bytes):
        raise InvalidRequest(f"{what} is binary, which cannot be read; {EXPORT}", "input")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    return None if value is None else str(value)


def unreadable(address: str, kind: str, error: Exception, way_out: str = "") -> InvalidRequest:
    """Return the error that says why a table's log or metadata cannot be read."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    told = f"{reason}; {way_out}" if way_out else reason
    return InvalidRequest(f"{address}: this {kind} table cannot be opened: {told}", "input")


def gone(version: int) -> str:
    """Return what to do where a table no longer has the version that a job began with."""
    return f"the job here began with version {version}: take a new --output, or --overwrite"


def missing_extra(address: str, kind: str) -> InvalidRequest:
    """Return the error that says which extra reads this kind of table."""
    extra = kind.lower()
    return InvalidRequest(
        f"{address} is of {kind}; reading it needs the extra `{extra}`:"
        f" pip install 'ray-rerank[{extra}]'",
        "input",
    )


def connection(options: str, *, region: str, endpoint: str) -> dict[str, str]:
    """Return what stands behind the `?` of an S3 address, by the names that a library has for it.

    pyarrow, whose names the address has, gives scheme and host of an endpoint apart.
    """
    pairs = (part.partition("=") for part in options.split("&") if part)
    asked = {name: value for name, _, value in pairs}
    host = asked.get("endpoint_override")
    if host and "://" not in host:
        host = f"{asked.get('scheme', 'https')}://{host}"
    given = {region: asked.get("region"), endpoint: host}
    return {name: value for name, value in given.items() if value is not None}


def exists(filesystem: pafs.FileSystem, path: str) -> bool:
    """Say whether there is a file or folder; what may not be asked is taken for absent."""
    try:
        info: Any = filesystem.get_file_info(path)
    except OSError:
        return False
    return bool(info.type != pafs.FileType.NotFound)
