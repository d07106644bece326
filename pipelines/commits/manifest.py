"""The commit: finished units become the result, and the manifest says so.

It does not know what is scored.
"""

from __future__ import annotations

from typing import Any

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.records import DATA, MANIFEST, QUARANTINE, SUCCESS, JobFolder, JobRecords
from pipelines.inputs.units import Say, silent, told

# Where files lie before the commit and after it, and what the manifest calls them.
_PLACES = (("data", DATA, "files"), ("quarantine", QUARANTINE, "quarantine"))


def commit(
    folder: JobFolder,
    planned: dict[str, int],
    records: JobRecords,
    header: dict[str, Any],
    *,
    buckets: int = 0,
    names: ColumnNames | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Turn finished units into the result. Idempotent: a killed commit is finished by the next.

    `planned` and `buckets` are the plan's, see `checked`; ranks are checked in the columns that
    `names` says; `say` is told a step, and how many of how many files are done. Raises Incomplete
    when something does not add up; then nothing has changed.
    """
    folder.refuse_if_fenced()
    store = folder.store
    manifest = store.read_json(MANIFEST)
    if manifest is None:
        manifest = {**header, **checked(planned, buckets, records)}
        for work, _, key in _PLACES:
            _sweep(folder, work, [file["file"] for file in manifest[key]])
        if names:
            files = {f"_job/data/{file['file']}": file["bytes"] for file in manifest["files"]}
            refuse_wrong_ranks(store, files, names, told(say, "ranks checked", len(files)))
        if not store.create_json(MANIFEST, manifest):
            manifest = store.read_json(MANIFEST)
    for work, place, key in _PLACES:
        named = [file["file"] for file in manifest[key]]
        store.place(f"_job/{work}", place, named, told(say, "files in place", len(named)))
    # Before the last file: a commit that is killed here is made again, one that has ended is not.
    for scratch in ("attempts", "input", "scratch", "data", "quarantine"):
        store.delete_folder(f"_job/{scratch}")
    store.replace(SUCCESS, b"")
    return dict(manifest)


def _sweep(folder: JobFolder, work: str, named: list[str]) -> None:
    """Delete attempt files that no record names; nobody has ever read them."""
    there = folder.store.names(f"_job/{work}")
    if absent := sorted(set(named) - set(there)):
        raise Incomplete(f"{len(absent)} {work} files are missing, the first is {absent[0]}")
    folder.store.delete(f"_job/{work}/{name}" for name in set(there) - set(named))
