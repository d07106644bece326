"""Finds tables of a lake among files, and refuses inputs that take files out of one.

Read as plain files, such a table brings deleted and replaced rows back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow.fs as pafs

from pipelines.inputs.lake.delta import delta_snapshot
from pipelines.inputs.lake.iceberg import METADATA, iceberg_snapshot, metadata_of_folder
from pipelines.inputs.lake.snapshot import EXPORT, Snapshot, exists
from rerank_core import InvalidRequest

_MARKS = {"_delta_log": "Delta", ".hoodie": "Hudi"}


def lake_tables(paths: Sequence[Sequence[str]]) -> dict[tuple[str, ...], str]:
    """Return the folders that are tables of a lake, and of which kind, from files' path parts."""
    found = {}
    for parts in paths:
        for place, part in enumerate(parts[:-1]):
            kind = _MARKS.get(part)
            if part == "metadata" and parts[-1].endswith(METADATA):
                kind = "Iceberg"
            if kind:
                found[tuple(parts[:place])] = kind
    return found


def refuse_part_of_table(
    address: str, tables: dict[tuple[str, ...], str], paths: Sequence[Sequence[str]]
) -> None:
    """Raise InvalidRequest for files, by their paths below the address, that lie in a table."""
    for folder, kind in sorted(tables.items()):
        if any(tuple(parts[: len(folder)]) == folder for parts in paths):
            raise _part("/".join([address.rstrip("/"), *folder]), kind)


def refuse_inside_table(
    filesystem: pafs.FileSystem, root: str, name: Callable[[str], str], none: set[str]
) -> None:
    """Raise InvalidRequest for a file or folder that lies inside a table.

    `name` makes an address of a path of the file system; `none` gathers folders that are no tables.
    """
    parts = root.rstrip("/").split("/")[:-1]
    while parts and parts != [""]:
        folder = "/".join(parts)
        if name(folder) in none:
            return
        none.add(name(folder))
        for mark, kind in _MARKS.items():
            if exists(filesystem, f"{folder}/{mark}"):
                raise _part(name(folder), kind)
        if exists(filesystem, f"{folder}/metadata") and _has_metadata(filesystem, folder):
            raise _part(name(folder), "Iceberg")
        parts.pop()


def _has_metadata(filesystem: pafs.FileSystem, folder: str) -> bool:
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(f"{folder}/metadata"))
    except OSError:
        return False
    return any(info.base_name.endswith(METADATA) for info in infos)


def _part(where: str, kind: str) -> InvalidRequest:
    way_out = EXPORT if kind == "Hudi" else f"give the table itself as an input, or {EXPORT}"
    return InvalidRequest(
        f"{where} is a{'n' * (kind == 'Iceberg')} {kind} table: read as plain files, rows that were"
        f" deleted come back; {way_out}",
        "input",
    )


def table_of_folder(
    address: str,
    kind: str,
    filesystem: pafs.FileSystem,
    root: str,
    *,
    options: str = "",
    version: int | None = None,
) -> Snapshot:
    """Return the table that a folder is, at this version or its current one.

    Raises InvalidRequest for kinds that cannot be read, with the way out.
    """
    if kind == "Hudi":
        raise _part(address, kind)
    if kind == "Iceberg":
        metadata = metadata_of_folder(address, filesystem, root)
        return iceberg_snapshot(metadata, options, version)
    return delta_snapshot(address, options, version)
