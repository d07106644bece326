"""Which files an input names: paths, folders, globs, tables of a lake, on any file system.

It does not know what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.commits.store import open_store
from pipelines.inputs.lake.iceberg import iceberg_snapshot, is_iceberg
from pipelines.inputs.lake.snapshot import Rows, Snapshot
from pipelines.inputs.lake.tables import (
    lake_tables,
    refuse_inside_table,
    refuse_part_of_table,
    table_of_folder,
)
from pipelines.inputs.left_out import HIDDEN, OLD, OTHER, LeftOut
from pipelines.inputs.partitions import Partition, partition_of, typed
from pipelines.inputs.paths import address_in, kind_of, meant, open_filesystem, quoted, split_glob
from pipelines.inputs.units import RowGroup
from pipelines.retries import first_line, retried
from rerank_core import InvalidRequest


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: its address, size in bytes, and the hash of its footer ("" if unreadable).

    `partition` has the columns that its folders, or its table, name; `snapshot` says of which
    version of a table it is, `table` has that table's columns, and `columns` pairs each that the
    file has with its name in the file. `source` is the file that this one was made from,
    `rows` reads what is left of one that has deleted rows.
    """

    path: str
    size: int
    footer: str = ""
    groups: tuple[RowGroup, ...] = ()
    bad: str = ""
    partition: Partition = ()
    snapshot: str = ""
    table: pa.Schema | None = None
    columns: tuple[tuple[str, str], ...] = ()
    source: str = ""
    rows: Rows | None = field(default=None, compare=False)

    @property
    def given(self) -> str:
        """The file that people know: what this one was made from, if it was."""
        return self.source or self.path

    def as_json(self) -> dict[str, Any]:
        """Return what a plan, or a reader elsewhere, keeps of it; the fields make it again."""
        kept = ("path", "size", "footer", "bad", "partition", "snapshot", "columns", "source")
        return {name: getattr(self, name) for name in kept}

    def open(self) -> pa.NativeFile:
        """Open it: one that the job made as the job writes, any other as inputs are read."""
        if self.source:
            folder, _, name = self.path.rpartition("/")
            return open_store(folder).open(name)
        filesystem, inner = open_filesystem(self.path)
        return filesystem.open_input_file(inner)


@dataclass(slots=True)
class Listing:
    """The files of inputs, the versions of their tables by address, and what was left out.

    `no_tables` are folders that were looked at, for the next input.
    """

    files: list[InputFile] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)
    no_tables: set[str] = field(default_factory=set)


# Lists inputs as `list_inputs` does: at these versions of their tables, else at current ones.
Look = Callable[[tuple[str, ...], Mapping[str, int] | None], Listing]


def list_inputs(inputs: tuple[str, ...], versions: Mapping[str, int] | None = None) -> Listing:
    """List the files behind paths, folders, globs and tables, sorted within each input.

    Hidden files and those that start with `_` are left out, as Parquet readers do. Tables are read
    at the versions given, else at their current ones. Raises InvalidRequest for an input that has
    no files.
    """
    listing = Listing()
    found: dict[str, InputFile] = {}
    for text in inputs:
        files = sorted(_expand(text, versions or {}, listing), key=lambda file: file.path)
        if not files:
            raise InvalidRequest(
                f"input {text}: no Parquet file there; files of other kinds are named by a glob, as"
                " in folder/*.jsonl",
                "input",
            )
        found.update({file.path: file for file in files})
    # The type of a folder's column is that of all its values; a table knows its types.
    plain = [file for file in found.values() if not file.snapshot]
    for file, partition in zip(plain, typed(file.partition for file in plain), strict=True):
        found[file.path] = replace(file, partition=partition)
    listing.files = list(found.values())
    return listing


def _expand(text: str, versions: Mapping[str, int], listing: Listing) -> Iterator[InputFile]:
    address, mark, options = text.partition("?") if "://" in text else (text, "", "")
    if is_iceberg(address):
        address = address if "://" in address else os.path.abspath(address)
        snapshot = iceberg_snapshot(address, options, versions.get(address))
        yield from _of_table(address, snapshot, mark + options, listing)
        return
    base, pattern = split_glob(address)
    filesystem, root = _asked(lambda: open_filesystem(base + mark + options), text)
    info: Any = _asked(lambda: filesystem.get_file_info(root), text)
    if info.type == pafs.FileType.NotFound:
        raise InvalidRequest(f"input {text}: there is nothing at {base}", "input")
    name = partial(address_in, filesystem, base, root)
    refuse_inside_table(filesystem, root, name, listing.no_tables)
    if info.type == pafs.FileType.File:
        # One file has one address, or a folder and a file in it would be read twice.
        yield InputFile(name(root) + mark + options, info.size, partition=_partition(root))
        return
    everything = pafs.FileSelector(root, recursive=True)
    items: list[Any] = _asked(lambda: filesystem.get_file_info(everything), text)
    items = [item for item in items if item.type == pafs.FileType.File]
    below = [item.path[len(root) :].strip("/").split("/") for item in items]
    tables = lake_tables(below)
    if () not in tables or pattern:
        chosen = [
            (item, parts)
            for item, parts in zip(items, below, strict=True)
            if _is_meant(item.path, parts, pattern, listing)
        ]
        refuse_part_of_table(name(root), tables, [parts for _, parts in chosen])
        for item, _ in chosen:
            partition = _partition(item.path)
            yield InputFile(name(item.path) + mark + options, item.size, partition=partition)
        return
    here = name(root)
    version = versions.get(here)
    snapshot = table_of_folder(here, tables[()], filesystem, root, options=options, version=version)
    files = list(_of_table(here, snapshot, mark + options, listing))
    current = {file.path for file in files}
    for path in (item.path for item in items if kind_of(item.path) == "parquet"):
        if name(path) + mark + options not in current and "/_delta_log/" not in path:
            listing.left_out.add(OLD, path)
    yield from files


def _is_meant(path: str, parts: list[str], pattern: list[str], listing: Listing) -> bool:
    """Say whether to read a file; count those that people may have meant."""
    verdict = meant(parts, pattern)
    hidden = any(part.startswith((".", "_")) and "=" not in part for part in parts)
    if verdict != "no" and (hidden or verdict == "other"):
        listing.left_out.add(HIDDEN if hidden else OTHER, path)
    return verdict == "yes" and not hidden


def _of_table(address: str, snapshot: Snapshot, tail: str, listing: Listing) -> Iterator[InputFile]:
    listing.versions[address] = snapshot.version
    for file in snapshot.files:
        path = quoted(file.path) + tail * ("://" in file.path)
        yield InputFile(
            path,
            file.size,
            partition=file.partition,
            snapshot=snapshot.name,
            table=snapshot.columns,
            rows=file.rows,
        )


def _partition(path: str) -> Partition:
    return partition_of(path.split("/")[:-1])


def _asked(call: Callable[[], Any], text: str) -> Any:
    """Return what a store answers; its errors are the input's."""
    try:
        return retried(call, f"input {text}")
    except OSError as error:
        raise InvalidRequest(f"input {text}: {first_line(error)}", "input") from None
