"""Opens a finished result, and checks it again from the files alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.delta_log import LOG
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.records import DATA, MANIFEST, PLAN, QUARANTINE, JobFolder, is_complete
from pipelines.commits.store import Store, open_store
from pipelines.growing.exchange import current
from pipelines.inputs.units import slices_from_json
from rerank_core import InvalidRequest

# Bytes that are read at once.
_BLOCK = 4 << 20


def open_result(path: str | PathLike[str]) -> pads.Dataset:
    """Return the files that the manifest names, in input order."""
    store = current(open_store(path))
    manifest = finished_manifest(store)
    files = [store.path(f"{DATA}/{file['file']}") for file in manifest["files"]]
    if not files:
        return pads.dataset(pa.table({}))
    return pads.dataset(files, format="parquet", filesystem=store.filesystem())


def finished_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest of a finished job; InvalidRequest where there is none."""
    store = current(store)
    manifest = store.read_json(MANIFEST)
    if manifest is None or not is_complete(store):
        raise InvalidRequest(f"{store} holds no finished job")
    return dict(manifest)


def verify(path: str | PathLike[str]) -> dict[str, Any]:
    """Check every file's hash and rows, ranks, and that nothing is lost; return the counts.

    Raises Incomplete with the first thing that is wrong.
    """
    store = current(open_store(path))
    manifest = finished_manifest(store)
    for folder, key in ((DATA, "files"), (QUARANTINE, "quarantine")):
        for file in manifest[key]:
            _check_file(store, f"{folder}/{file['file']}", file)
        there = set(store.names(folder))
        extra = there - {file["file"] for file in manifest[key]} - {LOG}
        if extra:
            raise Incomplete(f"{folder} has files that are not in the manifest: {sorted(extra)}")
    plan = store.read_json(PLAN)
    planned = {
        unit.name: unit.rows for piece in slices_from_json(plan["slices"]) for unit in piece.units
    }
    found = checked(planned, plan["buckets"], JobFolder(store, 0).all_records())
    for key, value in found.items():
        if manifest[key] != value:
            raise Incomplete(f"the manifest's {key} are not those of the records")
    names = ColumnNames(**manifest["config"]["names"])
    sizes = {f"{DATA}/{file['file']}": file["bytes"] for file in manifest["files"]}
    refuse_wrong_ranks(store, sizes, names)
    return dict(found["counts"])


def _check_file(store: Store, key: str, expected: dict[str, Any]) -> None:
    try:
        digest, rows = store.with_file(key, _digest_and_rows)
    except FileNotFoundError:
        raise Incomplete(f"{key} is missing") from None
    except pa.ArrowInvalid:
        raise Incomplete(f"{key} is no Parquet file") from None
    if digest != expected["sha256"]:
        raise Incomplete(f"{key} is not the file that was committed")
    if rows != expected["rows"]:
        raise Incomplete(f"{key} has another number of rows")


def _digest_and_rows(file: pa.NativeFile) -> tuple[str, int]:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest(), pq.read_metadata(file).num_rows


def verify_command(arguments: Sequence[str], out: TextIO) -> int:
    """Verify one folder for the command line; exit code 0 sound, 1 not."""
    if len(arguments) != 1:
        raise InvalidRequest("usage: python -m pipelines.rerank_job verify OUT")
    try:
        counts = verify(arguments[0])
    except Incomplete as error:
        out.write(f"not sound: {error}\n")
        return 1
    shown = ", ".join(f"{name} {value:,}" for name, value in counts.items())
    out.write(f"sound: {shown}\n")
    return 0
