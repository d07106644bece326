"""Iceberg tables, by a metadata file or a catalogue: which files a snapshot has.

It does not know how columns that were renamed since are found in older files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.inputs.lake.snapshot import (
    EXPORT,
    Snapshot,
    TableFile,
    connection,
    gone,
    missing_extra,
    unreadable,
    values_as_text,
)
from rerank_core import InvalidRequest

SCHEME, METADATA = "iceberg://", ".metadata.json"


def is_iceberg(address: str) -> bool:
    """Say whether an input names an Iceberg table by catalogue or metadata file."""
    return address.startswith(SCHEME) or address.partition("?")[0].endswith(METADATA)


def iceberg_snapshot(address: str, options: str = "", version: int | None = None) -> Snapshot:
    """Return an Iceberg table at this snapshot, or at its current one.

    `address` is `iceberg://CATALOGUE/NAMESPACE.TABLE`, of a catalogue that pyiceberg is set up for,
    or a metadata file. Raises InvalidRequest for a table that is more than its files, with the way
    out, and for a snapshot that is gone.
    """
    try:
        import pyiceberg.table  # noqa: F401
    except ImportError:
        raise missing_extra(address, "Iceberg") from None
    try:
        return _snapshot(address, _load(address, options), version)
    except InvalidRequest:
        raise
    except Exception as error:  # whatever the library raises, the table cannot be opened
        way_out = EXPORT if "equality deletes" in str(error) else ""
        raise unreadable(address, "Iceberg", error, way_out) from None


def _load(address: str, options: str) -> Any:
    if address.startswith(SCHEME):
        from pyiceberg.catalog import load_catalog

        catalogue, _, name = address.removeprefix(SCHEME).partition("/")
        return load_catalog(catalogue).load_table(name)
    from pyiceberg.table import StaticTable

    properties = connection(options, region="s3.region", endpoint="s3.endpoint")
    return StaticTable.from_metadata(address, properties)


def _snapshot(address: str, table: Any, version: int | None) -> Snapshot:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    current = table.current_snapshot()
    number = version if version is not None else (current.snapshot_id if current else 0)
    if number and table.snapshot_by_id(number) is None:
        raise InvalidRequest(f"{address}: snapshot {number} is gone; {gone(number)}", "input")
    # An older snapshot is read with the columns that it had, the current one with the table's.
    older = current is not None and number != current.snapshot_id
    scan = table.scan(snapshot_id=number if older else None)
    files = [_file(address, task, table, scan) for task in scan.plan_files()]
    columns: pa.Schema = schema_to_pyarrow(scan.projection())
    return Snapshot(address, number, f"Iceberg snapshot {number}", columns, files)


def _file(address: str, task: Any, table: Any, scan: Any) -> TableFile:
    from pyiceberg.transforms import IdentityTransform

    file = task.file
    if file.file_format.value != "PARQUET":
        raise InvalidRequest(f"{address} has files of {file.file_format.value}; {EXPORT}", "input")
    spec, schema = table.specs()[file.spec_id], scan.projection()
    values = []
    for place, field in enumerate(spec.fields):
        dropped = schema.find_column_name(field.source_id) is None
        if isinstance(field.transform, IdentityTransform) and not dropped:
            source, value = schema.find_field(field.source_id), file.partition[place]
            text = field.transform.to_human_string(source.field_type, value)
            values.append((source.name, None if value is None else text))
    partition = values_as_text(address, values)
    rows = partial(_kept, task, table, scan) if task.delete_files else None
    return TableFile(file.file_path, file.file_size_in_bytes, partition, rows)


def _kept(task: Any, table: Any, scan: Any) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file that its delete files leave, with the table's columns."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    reader = ArrowScan(table.metadata, table.io, scan.projection(), AlwaysTrue())
    try:
        yield from reader.to_record_batches([task])
    except Exception as error:  # whatever the library raises, the rows cannot be read
        raise unreadable(task.file.file_path, "Iceberg", error) from None


def metadata_of_folder(address: str, filesystem: pafs.FileSystem, root: str) -> str:
    """Return the current metadata file of a table's folder, whose name version-hint.text says.

    Without one only a catalogue knows which is current: raises InvalidRequest that says so.
    """
    folder = f"{root.rstrip('/')}/metadata"
    hint = f"{folder}/version-hint.text"
    infos: Any = filesystem.get_file_info(pafs.FileSelector(folder))
    names = sorted(info.base_name for info in infos if info.base_name.endswith(METADATA))
    if any(info.path == hint for info in infos):
        with filesystem.open_input_stream(hint) as stream:
            text = stream.read().decode().strip()
        name = text if text.endswith(METADATA) else f"{'v' * text.isdecimal()}{text}{METADATA}"
        if name in names:
            return f"{address.rstrip('/')}/metadata/{name}"
    raise InvalidRequest(
        f"{address} is an Iceberg table, and only its catalogue knows which metadata is current:"
        f" give iceberg://CATALOGUE/NAMESPACE.TABLE or the metadata file, as"
        f" {address.rstrip('/')}/metadata/{names[-1]} (the last by name)",
        "input",
    )
