"""Which files an input names: paths, folders, globs and partitioned data, on any file system.

It does not know what is in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import unquote

import pyarrow.fs as pafs

from pipelines.commits.store import open_store
from pipelines.inputs.lake import lake_tables, refuse_part_of_table, snapshot_files
from pipelines.inputs.units import RowGroup
from rerank_core import InvalidRequest

_GLOB = set("*?[")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
PartitionValue = str | int | None


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: its address, size in bytes, and the hash of its footer ("" if unreadable).

    `partition` has the columns that its folders name, as in `lang=en/0.parquet`; `snapshot` says of
    which version of a table the file is.
    """

    path: str
    size: int
    footer: str = ""
    groups: tuple[RowGroup, ...] = ()
    bad: str = ""
    partition: tuple[tuple[str, PartitionValue], ...] = ()
    snapshot: str = ""


def list_files(inputs: tuple[str, ...]) -> list[InputFile]:
    """Return the Parquet files behind paths, folders and globs, sorted within each input.

    Hidden files and those that start with `_` are left out, as Parquet readers do. Raises
    InvalidRequest for an input that has none.
    """
    found: dict[str, InputFile] = {}
    for text in inputs:
        files = sorted(_expand(text), key=lambda file: file.path)
        if not files:
            raise InvalidRequest(
                f"input {text}: no Parquet file there; files of other kinds are named by a glob, as"
                " in folder/*.jsonl",
                "input",
            )
        found.update({file.path: file for file in files})
    return _with_typed_partitions(list(found.values()))


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a path or URI (s3://, gs://, az://, hdfs://) and the path in it.

    What stands behind a `?` of a URI sets up the connection, as pyarrow documents it.
    """
    if "://" in path:
        if ":" in path.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise InvalidRequest(
                "an address with a secret in it would be written into plan, manifest and report;"
                " give it through the environment or a profile of the store",
                "input",
            )
        if path.startswith("az://"):  # pyarrow's own client wants the account in the address
            return open_store(path).filesystem(), path.partition("://")[2]
        filesystem, inner = pafs.FileSystem.from_uri(path)
        return filesystem, inner
    return pafs.LocalFileSystem(), os.path.abspath(path)


def holds(text: str, folder: str) -> bool:
    """Say whether an input takes all that lies in an output folder, or in one below it."""
    text = text.partition("?")[0].removeprefix("file://") if "://" in text else text
    base, inside = (
        place.rstrip("/") if "://" in place else os.path.realpath(place)
        for place in (_before_glob(text), folder)
    )
    if not f"{inside}/".startswith(f"{base.rstrip('/')}/") or os.path.isfile(base):
        return False
    below = [part for part in inside[len(base) :].split("/") if part]
    pattern = [part for part in text[len(_before_glob(text)) :].split("/") if part]
    return _wanted([*below, "data", "part-0.parquet"], pattern)


def _expand(text: str) -> Iterator[InputFile]:
    address, mark, options = text.partition("?") if "://" in text else (text, "", "")
    base = _before_glob(address)
    filesystem, root = open_filesystem(base + mark + options)
    info = filesystem.get_file_info(root)
    if info.type == pafs.FileType.NotFound:
        raise InvalidRequest(f"input {text}: there is nothing at {base}", "input")
    if info.type == pafs.FileType.File:
        # One file has one address, or a folder and a file in it would be read twice.
        local = isinstance(filesystem, pafs.LocalFileSystem)
        yield InputFile(root if local else text, info.size)
        return
    pattern = [part for part in address[len(base) :].split("/") if part]
    items = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    below = [item.path[len(root) :].strip("/").split("/") for item in items]
    tables = lake_tables(below)
    if () in tables and not pattern:
        yield from _of_table(base, tables[()])
        return
    refuse_part_of_table(base, tables)
    for item, parts in zip(items, below, strict=True):
        hidden = any(part.startswith((".", "_")) and "=" not in part for part in parts)
        if item.type != pafs.FileType.File or hidden or not _wanted(parts, pattern):
            continue
        path = _prefix(base, root) + item.path + mark + options
        yield InputFile(path, item.size, partition=tuple(_partition(parts[:-1])))


def _of_table(base: str, kind: str) -> Iterator[InputFile]:
    """Yield the files of a table's current snapshot; partitions that are no numbers are text."""
    whole = base if "://" in base else os.path.abspath(base)
    for path, size, values, snapshot in snapshot_files(whole, kind):
        partition = tuple(
            (name, value if value is None or type(value) is int else str(value))
            for name, value in values.items()
        )
        address = f"{whole.rstrip('/')}/{unquote(path)}"
        yield InputFile(address, size, partition=partition, snapshot=snapshot)


def _before_glob(address: str) -> str:
    """Return the folder in front of the first part that has a wildcard."""
    scheme, mark, rest = address.rpartition("://")
    if not _GLOB & set(rest):
        return address
    fixed = rest[: min(rest.index(letter) for letter in _GLOB if letter in rest)]
    folder = fixed.rpartition("/")[0]
    return scheme + mark + (folder or ("/" if fixed.startswith("/") else "."))


def _prefix(base: str, root: str) -> str:
    """Return what stands before a path inside the filesystem to make it an address again."""
    if "://" not in base or base.startswith("file://"):
        return ""
    base = base.rstrip("/")
    return base.removesuffix(root) if base.endswith(root) else base.partition("://")[0] + "://"


def _wanted(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether a file is meant: by its own name, or by that of a folder it lies in."""
    if pattern and _matches(parts, pattern):
        return True
    inside = not pattern or any(_matches(parts[:n], pattern) for n in range(1, len(parts)))
    return inside and parts[-1].endswith(".parquet")


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    first = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return first and _matches(parts[1:], pattern[1:])


def _partition(folders: Sequence[str]) -> Iterator[tuple[str, PartitionValue]]:
    for folder in folders:
        name, mark, value = folder.partition("=")
        if name and mark:
            yield unquote(name), None if value == _NULL_PARTITION else unquote(value)


def _with_typed_partitions(files: list[InputFile]) -> list[InputFile]:
    """Make a partition column numeric where all its values are whole numbers."""
    plain = [file for file in files if not file.snapshot]  # a table knows its types
    texts = {name for file in plain for name, value in file.partition if not _is_number(value)}
    return [
        file if file.snapshot else replace(file, partition=tuple(_typed(file.partition, texts)))
        for file in files
    ]


def _typed(
    partition: Iterable[tuple[str, PartitionValue]], texts: set[str]
) -> Iterator[tuple[str, PartitionValue]]:
    for name, value in partition:
        yield name, value if name in texts or value is None else int(value)


def _is_number(value: PartitionValue) -> bool:
    text = "" if value is None else str(value)
    digits = text.removeprefix("-")
    plain = text.isascii() and digits.isdecimal() and (digits[0] != "0" or text == "0")
    return plain and len(text) < 18  # 007 is a name
