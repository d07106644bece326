"""Opens a finished result, and checks it again from the files alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.delta_log import LOG
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.records import (
    BALANCE,
    DATA,
    MANIFEST,
    PLAN,
    QUARANTINE,
    JobFolder,
    JobRecords,
    is_complete,
    record_key,
)
from pipelines.commits.store import Damaged, Store, at_once, damaged, open_store
from pipelines.growing.exchange import current
from pipelines.inputs.units import Say, silent, slices_from_json, told
from pipelines.retries import first_line
from rerank_core import InvalidRequest

# Bytes that are read at once, of each of many files.
_BLOCK = 1 << 20
# What nobody can do without, of a manifest and of records by their stage.
_OF_MANIFEST = {"counts", "files", "quarantine", "config"}
_OF_RECORDS = {
    "units": {"counts", "data"},
    "ranks": {"rows"},
    "scattered": {"rows"},
    "final": {"units", "data", "aside"},
}


def open_result(path: str | PathLike[str]) -> pads.Dataset:
    """Return the files that the manifest names, in input order."""
    store = current(open_store(path))
    manifest = finished_manifest(store)
    files = [store.path(f"{DATA}/{file['file']}") for file in manifest["files"]]
    if not files:
        return pads.dataset(pa.table({}))
    return pads.dataset(files, format="parquet", filesystem=store.filesystem())


def finished_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest of a finished job; InvalidRequest where there is none, Damaged."""
    store = current(store)
    if not is_complete(store):
        raise InvalidRequest(f"{store} holds no finished job")
    manifest = store.read_json(MANIFEST)
    if not _has(manifest, _OF_MANIFEST):
        raise damaged(store.address(MANIFEST))
    return dict(manifest)


def verify(path: str | PathLike[str], say: Say = silent) -> dict[str, Any]:
    """Check every file's hash and rows, ranks, and that nothing is lost; return the counts.

    `say` is told a step, and how many of how many files are done. Raises Incomplete with the first
    thing that is wrong.
    """
    try:
        return _verified(current(open_store(path)), say)
    except Damaged as error:
        raise Incomplete(str(error)) from None


def _verified(store: Store, say: Say) -> dict[str, Any]:
    manifest = finished_manifest(store)
    with _whole(store.address(MANIFEST)):
        names = ColumnNames(**manifest["config"]["names"])
        named = {
            folder: {file["file"]: (file["sha256"], file["rows"]) for file in manifest[key]}
            for folder, key in ((DATA, "files"), (QUARANTINE, "quarantine"))
        }
        sizes = {f"{DATA}/{file['file']}": file["bytes"] for file in manifest["files"]}
    for folder, files in named.items():
        heard = told(say, f"files of {folder}", len(files))
        at_once(partial(_check_file, store, folder), files.items(), heard)
        extra = set(store.names(folder)) - files.keys() - {LOG}
        if extra:
            raise Incomplete(f"{folder} has files that are not in the manifest: {sorted(extra)}")
    with _whole(store.address(PLAN)):
        plan = store.read_json(PLAN)
        slices, buckets = slices_from_json(plan["slices"]), int(plan["buckets"])
    planned = {unit.name: unit.rows for piece in slices for unit in piece.units}
    found = checked(planned, buckets, _whole_records(store, say))
    for key, value in found.items():
        if manifest[key] != value:
            raise Incomplete(f"the manifest's {key} are not those of the records")
    refuse_wrong_ranks(store, sizes, names, told(say, "ranks", len(sizes)))
    return dict(found["counts"])


@contextmanager
def _whole(address: str) -> Iterator[None]:
    """Raise Damaged where the values of the file there are not what a job writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged(address) from None


def _whole_records(store: Store, say: Say) -> JobRecords:
    """Return the records of a job; Damaged for one that lacks what every one has."""
    records = JobFolder(store, 0).all_records(say)
    for stage, needed in _OF_RECORDS.items():
        for name, record in getattr(records, stage).items():
            whole = _has(record, needed)
            if not whole or (stage == "units" and not _has(record["counts"], BALANCE)):
                raise damaged(store.address(record_key(stage, name)))
    return records


def _has(value: Any, needed: set[str]) -> bool:
    return isinstance(value, dict) and needed <= value.keys()


def _check_file(store: Store, folder: str, item: tuple[str, tuple[str, int]]) -> None:
    name, (digest, rows) = item
    key = f"{folder}/{name}"
    try:
        there = store.with_file(key, partial(_rows_of, digest=digest))
    except FileNotFoundError:
        raise Incomplete(f"{key} is missing") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise Incomplete(f"{key} cannot be read: {first_line(error)}") from None
    if there is None:
        raise Incomplete(f"{key} is not the file that was committed")
    if there != rows:
        raise Incomplete(f"{key} has another number of rows")


def _rows_of(file: pa.NativeFile, digest: str) -> int | None:
    """Return the rows of a file of this hash; None for another, which may be no Parquet at all."""
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return pq.read_metadata(file).num_rows if found.hexdigest() == digest else None


def verify_command(arguments: Sequence[str], out: TextIO, say: Say = silent) -> int:
    """Verify one folder for the command line; exit code 0 sound, 1 not."""
    if len(arguments) != 1:
        raise InvalidRequest("usage: python -m pipelines.rerank_job verify OUT")
    try:
        counts = verify(arguments[0], say)
    except Incomplete as error:
        out.write(f"not sound: {error}\n")
        return 1
    shown = ", ".join(f"{name} {value:,}" for name, value in counts.items())
    out.write(f"sound: {shown}\n")
    return 0
