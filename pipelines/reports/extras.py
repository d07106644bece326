"""What a finished job writes beside its result: the report, and a TREC run if one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from pipelines.commits.records import SUCCESS, JobFolder
from pipelines.commits.store import Store
from pipelines.config import RerankJobConfig
from pipelines.reports.report import REPORT, write_report
from pipelines.reports.trec_run import write_trec_run


def write_extras(
    store: Store,
    manifest: dict[str, Any],
    config: RerankJobConfig,
    records: dict[str, Any] | None = None,
) -> None:
    """Write what is no part of the commit, unless it is there: a run may die just before it.

    Reads the records of the units where they are not given.
    """
    if store.size(REPORT) is None:
        found = JobFolder(store, 0).all_records().newest() if records is None else records
        write_report(store, manifest, found)
    if config.trec_run:
        path = Path(config.trec_run)
        if not path.is_file() or path.stat().st_mtime < store.modified_s(SUCCESS):
            write_trec_run(store, path, config.names)


def say_end(address: str, manifest: dict[str, Any], out: TextIO) -> None:
    """Say in a line or two what came of the job."""
    counts = manifest["counts"]
    out.write(
        f"done: {counts['rows_in']:,} rows in, {counts['rows_out']:,} out,"
        f" {counts['rows_cut']:,} cut by top_k, {counts['rows_quarantined']:,} set aside;"
        f" {address}\n"
    )
    for bad in manifest["bad_files"]:
        out.write(f"not read: {bad['path']}: {bad['reason']}\n")
