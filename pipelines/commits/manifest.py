"""The commit: finished units become the result, and the manifest says so.

It does not know what is scored.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from pipelines.columns import ColumnNames
from pipelines.commits import store
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.records import DATA, MANIFEST, QUARANTINE, SUCCESS, JobFolder, JobRecords


def commit(
    folder: JobFolder,
    planned: dict[str, int],
    records: JobRecords,
    header: dict[str, Any],
    *,
    buckets: int = 0,
    names: ColumnNames | None = None,
) -> dict[str, Any]:
    """Turn finished units into the result. Idempotent: a killed commit is finished by the next.

    `planned` and `buckets` are the plan's, see `checked`; ranks are checked in the columns that
    `names` says. Raises Incomplete when something does not add up; then nothing has changed.
    """
    folder.refuse_if_fenced()
    manifest = store.read_json(folder.root / MANIFEST)
    if manifest is None:
        manifest = {**header, **checked(planned, buckets, records)}
        _sweep(folder, manifest)
        if names:
            refuse_wrong_ranks(
                [folder.job / "data" / file["file"] for file in manifest["files"]], names
            )
        store.replace(folder.root / MANIFEST, store.json_bytes(manifest))
    for work, place in (("data", DATA), ("quarantine", QUARANTINE)):
        if (folder.job / work).is_dir() and not (folder.root / place).exists():
            os.rename(folder.job / work, folder.root / place)
    (folder.root / DATA).mkdir(exist_ok=True)
    store.replace(folder.root / SUCCESS, b"")
    for scratch in ("attempts", "sidecars", "scratch"):
        shutil.rmtree(folder.job / scratch, ignore_errors=True)
    return dict(manifest)


def _sweep(folder: JobFolder, manifest: dict[str, Any]) -> None:
    """Delete attempt files that no record names; nobody has ever read them."""
    for work, key in (("data", "files"), ("quarantine", "quarantine")):
        named = {file["file"] for file in manifest[key]}
        place = folder.job / work
        for path in place.iterdir() if place.is_dir() else ():
            if path.name not in named:
                path.unlink()
        absent = [name for name in named if not (place / name).is_file()]
        if absent:
            raise Incomplete(f"{len(absent)} {work} files are missing, the first is {absent[0]}")
