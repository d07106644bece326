"""Opens a finished result, and checks it again from the files alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits import store
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.delta_log import LOG
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.records import DATA, MANIFEST, QUARANTINE, SUCCESS, JobFolder
from pipelines.inputs.units import slices_from_json
from rerank_core import InvalidRequest


def open_result(path: str | PathLike[str]) -> pads.Dataset:
    """Return the files that the manifest names, in input order."""
    root = Path(path)
    manifest = finished_manifest(root)
    files = [str(root / DATA / file["file"]) for file in manifest["files"]]
    if not files:
        return pads.dataset(pa.table({}))
    return pads.dataset(files, format="parquet")


def finished_manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of a finished job; InvalidRequest where there is none."""
    manifest = store.read_json(root / MANIFEST)
    if manifest is None or not (root / SUCCESS).is_file():
        raise InvalidRequest(f"{root} holds no finished job")
    return dict(manifest)


def verify(path: str | PathLike[str]) -> dict[str, Any]:
    """Check every file's hash and rows, ranks, and that nothing is lost; return the counts.

    Raises Incomplete with the first thing that is wrong.
    """
    root = Path(path)
    manifest = finished_manifest(root)
    for folder, key in ((DATA, "files"), (QUARANTINE, "quarantine")):
        for file in manifest[key]:
            _check_file(root / folder / file["file"], file)
        there = set(store.names(root / folder))
        extra = there - {file["file"] for file in manifest[key]} - {LOG}
        if extra:
            raise Incomplete(f"{folder} has files that are not in the manifest: {sorted(extra)}")
    plan = store.read_json(root / "_job" / "plan.json")
    planned = {
        unit.name: unit.rows for piece in slices_from_json(plan["slices"]) for unit in piece.units
    }
    found = checked(planned, plan["buckets"], JobFolder(root, 0).all_records())
    for key, value in found.items():
        if manifest[key] != value:
            raise Incomplete(f"the manifest's {key} are not those of the records")
    names = ColumnNames(**manifest["config"]["names"])
    refuse_wrong_ranks([root / DATA / file["file"] for file in manifest["files"]], names)
    return dict(found["counts"])


def _check_file(path: Path, expected: dict[str, Any]) -> None:
    if not path.is_file():
        raise Incomplete(f"{path.name} is missing")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
            raise Incomplete(f"{path.name} is not the file that was committed")
    if pq.read_metadata(path).num_rows != expected["rows"]:
        raise Incomplete(f"{path.name} has another number of rows")


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
