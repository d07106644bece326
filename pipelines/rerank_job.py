"""Rerank Parquet files on Ray: every row scored exactly once, or set aside with a reason.

python -m pipelines.rerank_job --input IN --output OUT [--top-k K] [--model M] [--config FILE]
python -m pipelines.rerank_job verify OUT

The same command resumes a stopped job. Exit codes: 0 the result is complete; 1 an error;
2 bad options, input or model; 3 files unreadable or changed, documents that come twice and are
refused, or not the job that the folder holds;
4 the output folder is not free; 5 the disk is full; 6 too many rows kill their process;
130 interrupted.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pipelines import storage
from pipelines.commits import BALANCE, MANIFEST, SUCCESS, JobFolder, OutputRefused, commit
from pipelines.config import RerankJobConfig, load_config
from pipelines.inputs import FileChanged
from pipelines.isolation import TooManyKilled
from pipelines.joins import load_texts
from pipelines.lease import Lease
from pipelines.manifest_header import manifest_header
from pipelines.merge_stage import merge_queries
from pipelines.output_folder import choose_folder, replace_result
from pipelines.pairs import DUPLICATE
from pipelines.plan import JobChanged, Plan, fixed_plan, identity_of
from pipelines.progress import Progress
from pipelines.report import REPORT, write_report
from pipelines.score_stage import Engine, JobContext, LoadScorer
from pipelines.storage import StorageFull
from pipelines.trec_run import write_trec_run
from rerank_core import InvalidRequest, ModelUnavailable, RerankError, load_scorer
from rerank_core.calibration import Calibration


class DuplicateIds(RerankError):
    """Queries have documents twice, and `duplicates` is `refuse`."""


class TooManyBadFiles(RerankError):
    """More input files cannot be read than `max_bad_files` allows."""


_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (FileChanged, 3),
    (InvalidRequest, 2),
    (ModelUnavailable, 2),
    (JobChanged, 3),
    (TooManyBadFiles, 3),
    (DuplicateIds, 3),
    (OutputRefused, 4),
    (StorageFull, 5),
    (TooManyKilled, 6),
    (KeyboardInterrupt, 130),
)


def main(arguments: Sequence[str] | None = None, load: LoadScorer = load_scorer) -> int:
    """Run the command line; returns the exit code. `load` builds the scorer on each actor."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] == "verify":
            from pipelines.verify import verify_command

            return verify_command(arguments[1:], sys.stderr)
        config = load_config(arguments)
        if config.dry_run:
            from pipelines.dry_run import describe

            sys.stdout.write(describe(config) + "\n")
        else:
            _interrupt_on_sigterm()
            run_job(config, load, sys.stderr)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, sys.stderr)


def _report(error: BaseException, out: TextIO) -> int:
    """Say what went wrong in one line, and return the exit code for it."""
    for cause in _chain(error):
        for kind, code in _EXIT_CODES:
            if isinstance(cause, kind):
                text = "interrupted" if code == 130 else str(cause)
                out.write(f"\nerror: {text}\n")
                if code in (5, 130):
                    out.write("run the same command again to go on where it stopped\n")
                return code
    if isinstance(error, RerankError):
        out.write(f"\nerror: {error}\n")
        return 1
    raise error


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return the error and what lies behind it; Ray wraps what its workers raise."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return found[::-1]


def run_job(
    config: RerankJobConfig,
    load: LoadScorer = load_scorer,
    out: TextIO = sys.stderr,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Run or resume a job and return its manifest. Raises RerankError; see the module's codes.

    Works on Ray unless another engine is given.
    """
    root = Path(config.output).resolve()  # a link itself cannot be exchanged
    identity = identity_of(config)
    work = choose_folder(root, identity, config.overwrite)
    if work is None:
        out.write(f"already complete: {root}; nothing to do\n")
        manifest = dict(storage.read_json(root / MANIFEST))
        _write_extras(root, manifest, config)
        return manifest
    with Lease(work) as folder:
        plan = fixed_plan(folder, config, identity)
        bad = _work(folder, plan, config, load, out, engine)
        records = folder.records("units") | folder.records("final")
        _refuse_duplicates(config, records)
        header = manifest_header(plan, config, root, records)
        manifest = commit(folder, plan.rows, header | {"bad_files": bad})
        _write_extras(work, manifest, config)
    if work != root:
        replace_result(root, work)
    _say_end(root, manifest, out)
    return manifest


def _write_extras(root: Path, manifest: dict[str, Any], config: RerankJobConfig) -> None:
    """Write what is no part of the commit, unless it is there: a run may die just before it."""
    if not (root / REPORT).is_file():
        folder = JobFolder(root, 0)
        write_report(root, manifest, folder.records("units") | folder.records("final"))
    if config.trec_run:
        path, success = Path(config.trec_run), root / SUCCESS
        if not path.is_file() or path.stat().st_mtime < success.stat().st_mtime:
            write_trec_run(root, path, config.names)


def _work(
    folder: JobFolder,
    plan: Plan,
    config: RerankJobConfig,
    load: LoadScorer,
    out: TextIO,
    engine: Engine | None,
) -> list[dict[str, str]]:
    """Do the units that have no record, then the merge of queries over units.

    Returns the files that could not be read.
    """
    done = folder.done("units")
    left = [piece for whole in plan.slices if (piece := whole.pending(done))]
    if done:
        out.write(f"resuming: {len(done):,} of {len(plan.rows):,} units are done\n")
    if not left and not plan.buckets:
        return _settle_bad_files(folder, plan, config)
    _forget_former_deaths(folder, config.max_killed_rows, done)
    units, pairs = len(plan.rows), plan.pairs
    out.write(
        f"{config.scorer.model}, fingerprint {plan.identity['scorer']}: {pairs:,} pairs of"
        f" {len(plan.files):,} files in {units:,} units; starting Ray and the model\n"
    )
    with ExitStack() as stack:
        if engine is None:
            # Only here, so that a finished job answers without Ray.
            from pipelines.ray_stages import RayEngine

            engine = stack.enter_context(RayEngine())
            _interrupt_on_sigterm()  # again: Ray has set its own
        texts = load_texts(config) if left else None
        joined, calibration = bool(config.queries), _calibration(config)
        context = JobContext(folder, config, plan.shape, plan.buckets, joined, calibration)
        rows = plan.rows
        done_rows = sum(rows[name] for name in done)
        progress = Progress(sum(rows.values()), done_rows, out, config.progress_s)
        if left:
            stack.enter_context(progress)
        for line in engine.score_units(context, left, plan.files, texts, load) if left else ():
            if "bad" in line:
                storage.replace(folder.record("bad", line["unit"]), storage.json_bytes(line))
            else:
                progress.add(line)
        # Before the merge: units of unreadable files have no scores, but need their records.
        bad = _settle_bad_files(folder, plan, config)
        if plan.buckets and len(folder.done("units")) == len(rows):
            for _ in merge_queries(engine, context, list(rows)):
                pass
        return bad


def _forget_former_deaths(folder: JobFolder, max_killed: int, done: set[str]) -> None:
    """After a run that ended with too many killed rows, try those of unfinished units again."""
    killed = folder.job / "killed"
    names = storage.names(killed)
    if len(names) <= max_killed:
        return
    for name in names:
        unit = name.partition("-")[0]
        if unit not in done:
            (killed / name).unlink(missing_ok=True)
            shutil.rmtree(folder.job / "attempts" / unit, ignore_errors=True)


def _calibration(config: RerankJobConfig) -> Calibration | None:
    """Read the calibration before any model is loaded; InvalidRequest if it is for another."""
    path = config.scorer.calibration
    return Calibration.load(path, config.scorer.fingerprint()) if path else None


def _refuse_duplicates(config: RerankJobConfig, records: dict[str, Any]) -> None:
    count = sum(record["reasons"].get(DUPLICATE, 0) for record in records.values())
    if count and config.duplicates == "refuse":
        raise DuplicateIds(
            f"{count:,} documents come twice for their query. With --duplicates set_aside the same"
            " command ends in moments, the later ones set aside"
        )


def _interrupt_on_sigterm() -> None:
    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        signal.signal(signal.SIGTERM, interrupt)


def _settle_bad_files(
    folder: JobFolder, plan: Plan, config: RerankJobConfig
) -> list[dict[str, str]]:
    """Set aside the rows of unreadable files, or raise TooManyBadFiles beyond the limit.

    A later run tries them again as long as they are not settled.
    """
    units = folder.records("units")
    bad = {n: line for n, line in folder.records("bad").items() if n not in units}
    settled = [record for record in units.values() if record.get("bad")]
    reasons = dict(plan.bad_files)
    reasons |= {line["file"]: line["bad"] for line in [*settled, *bad.values()]}
    if len(reasons) > config.max_bad_files:
        listed = "; ".join(f"{path}: {reason}" for path, reason in sorted(reasons.items())[:10])
        raise TooManyBadFiles(
            f"{len(reasons)} input files cannot be read, --max-bad-files is {config.max_bad_files}."
            f" All others are done and kept. {listed}"
        )
    rows = plan.rows
    for name, line in bad.items():
        count = rows[name]
        aside = ("rows_in", "pairs_in", "rows_quarantined", "pairs_quarantined")
        counts = dict.fromkeys(BALANCE, 0) | dict.fromkeys(aside, count)
        record = {"counts": counts, "reasons": {line["bad"]: count}, "data": None}
        folder.publish("units", name, record | {"file": line["file"], "bad": line["bad"]})
    return [{"path": path, "reason": reason} for path, reason in sorted(reasons.items())]


def _say_end(root: Path, manifest: dict[str, Any], out: TextIO) -> None:
    counts = manifest["counts"]
    out.write(
        f"done: {counts['rows_in']:,} rows in, {counts['rows_out']:,} out,"
        f" {counts['rows_cut']:,} cut by top_k, {counts['rows_quarantined']:,} set aside; {root}\n"
    )
    for bad in manifest["bad_files"]:
        out.write(f"not read: {bad['path']}: {bad['reason']}\n")


if __name__ == "__main__":
    sys.exit(main())
