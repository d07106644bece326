"""What a finished job writes beside its result: the report, and other forms that are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from pipelines.commits.delta_log import write_delta_log
from pipelines.commits.records import REPORT, SUCCESS, JobFolder, JobRecords
from pipelines.commits.store import Store
from pipelines.config import RerankJobConfig
from pipelines.identity import versions_of
from pipelines.inputs.left_out import left_out_line
from pipelines.plan_file import Plan
from pipelines.reports.forms import write_json_lines, write_trec_run
from pipelines.reports.report import write_report
from pipelines.reports.side_files import refuse_unwritable, writing


def refuse_unwritable_extras(config: RerankJobConfig) -> None:
    """Raise InvalidRequest if a file that is asked for cannot be written, before all the work."""
    for path, option in ((config.trec_run, "--trec-run"), (config.json_lines, "--json-lines")):
        if path:
            refuse_unwritable(path, option)


def write_extras(
    store: Store,
    manifest: dict[str, Any],
    config: RerankJobConfig,
    records: JobRecords | None = None,
) -> None:
    """Write what is no part of the commit, unless it is there: a run may die just before it.

    Reads the records where they are not given.
    """
    if store.size(REPORT) is None:
        write_report(store, manifest, records or JobFolder(store, 0).all_records())
    if config.trec_run and _is_due(path := Path(config.trec_run), store):
        with writing(path, "--trec-run"):
            write_trec_run(store, path, config.names)
    if config.json_lines and _is_due(path := Path(config.json_lines), store):
        with writing(path, "--json-lines"):
            write_json_lines(store, path)
    if config.format == "delta":
        write_delta_log(store)


def _is_due(path: Path, store: Store) -> bool:
    """Say whether a file is not there, or is of an earlier result."""
    return not path.is_file() or path.stat().st_mtime < store.modified_s(SUCCESS)


def say_begin(plan: Plan, model: str, done: int, out: TextIO) -> None:
    """Say what is about to be done, and what of the input is not."""
    units = len(plan.rows)
    if left_out := left_out_line(plan.left_out):
        out.write(left_out + "\n")
    if former := plan.former:
        files = len(plan.files) - former["files"]
        out.write(f"appending {files:,} new files to {former['files']:,} that are finished\n")
    if done > plan.former_units:
        out.write(f"resuming: {done:,} of {units:,} units are done\n")
    if done < units or plan.buckets:
        out.write(
            f"{model}, fingerprint {plan.identity['scorer']}: {plan.pairs:,} pairs of"
            f" {len(plan.files):,} files in {units:,} units; starting Ray and the model\n"
        )


def say_complete(address: str, identity: dict[str, str], out: TextIO) -> None:
    """Say that there is nothing to do, and of which versions of tables the result is."""
    out.write(f"already complete: {address}; nothing to do\n")
    how = "a new --output" if "://" in address else "--overwrite"
    for table, version in versions_of(identity).items():
        out.write(f"  of {table} at version {version}; {how} takes the newest\n")


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
