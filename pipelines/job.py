"""A job's life as five functions: plan, score, settle, rank, commit.

Each returns what the next takes. It knows the order of things, and neither Ray nor how a pair is
scored or a file is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TextIO

from pipelines.commits import manifest
from pipelines.commits.checks import in_plan_order
from pipelines.commits.manifest_header import manifest_header
from pipelines.commits.records import PLAN, JobFolder, JobRecords, record_key
from pipelines.commits.store import json_bytes, open_store
from pipelines.config import RerankJobConfig
from pipelines.engine import Engine, JobContext, LoadScorer, Nearby, Tasks
from pipelines.growing.finished import finished_at
from pipelines.growing.reuse import find_known
from pipelines.identity import versions_of
from pipelines.inputs.joins import Texts, load_texts, refuse_other_texts
from pipelines.inputs.listing import Look, list_inputs
from pipelines.inputs.units import Slice
from pipelines.plan import fixed_plan
from pipelines.plan_file import Plan
from pipelines.ranks.output_files import write_files
from pipelines.ranks.over_units import rank_over_units
from pipelines.ranks.rank_steps import check_ranks
from pipelines.refusals import refuse_bad_files, refuse_copies, refuse_duplicates
from pipelines.reports.extras import say_begin, write_extras
from pipelines.reports.progress import Progress, Steps
from pipelines.stages.account import unreadable
from pipelines.stages.copies import count_copies
from pipelines.stages.isolate import forget_deaths
from rerank_core.calibration import Calibration

# Jobs of so few pairs, in so many bytes of output, take a step that is one task where they are.
FEW_PAIRS = 100_000
FEW_BYTES = 32_000_000


@dataclass(frozen=True, slots=True)
class Planned:
    """What the job is, and which of its units have no record yet."""

    plan: Plan
    context: JobContext
    left: list[Slice]
    done: set[str]
    texts: Texts | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A record for every unit, and the files that could not be read, with the reason."""

    records: JobRecords
    bad: list[dict[str, str]]


def plan(
    folder: JobFolder,
    config: RerankJobConfig,
    identity: dict[str, str],
    workers: Engine,
    out: TextIO,
    look: Look = list_inputs,
) -> Planned:
    """Fix the plan, or take the one that the folder has; say what is left of it.

    `look` lists the input.
    """
    fresh = folder.store.size(PLAN) is None
    # Here, so that its errors come before Ray starts.
    texts = load_texts(config, versions_of(identity), look) if fresh else None
    say = Steps(out, config.progress_s, "planning")
    digest = texts.digest if texts else ""
    fixed = fixed_plan(folder, config, identity, workers, texts=digest, say=say, look=look)
    path = config.scorer.calibration
    calibration = Calibration.load(path, config.scorer.fingerprint()) if path else None
    joined = bool(config.queries)
    context = JobContext(
        folder,
        config.model_copy(update={"keep_scores": fixed.keep_scores}),
        fixed.shape,
        fixed.buckets,
        joined,
        calibration,
        fixed.schema,
        first_new=fixed.former_units,
    )
    if fixed.former:
        finished_at(open_store(config.output)).adopt(folder, say)
    done = folder.done("units")
    left = [piece for whole in fixed.slices if (piece := whole.pending(done))]
    say_begin(fixed, config.scorer.model, len(done), out)
    return Planned(fixed, context, left, done, texts)


def score(
    planned: Planned, workers: Engine, load: LoadScorer, out: TextIO
) -> dict[str, dict[str, Any]]:
    """Score the units that have no record; return the records of all that could be read."""
    folder, config = planned.context.folder, planned.context.config
    say = Steps(out, config.progress_s, "resuming")
    records = folder.records("units", planned.done, say)
    if planned.left:
        forget_deaths(folder.store, config.max_killed_rows, planned.done)
        rows, files = planned.plan.rows, planned.plan.files
        done_rows = sum(rows[name] for name in planned.done)
        if config.duplicates == "refuse":
            say = Steps(out, config.progress_s, "looking for copies")
            whole = planned.plan.slices  # the rest of a job may have its copies in what is done
            refuse_copies(count_copies(workers, planned.context, whole, files, say))
        texts = planned.texts or load_texts(config, versions_of(planned.plan.identity))
        refuse_other_texts(texts, planned.plan.texts)
        context = _with_known(planned, workers, texts, out)
        with Progress(sum(rows.values()), done_rows, out, config.progress_s) as progress:
            for line in workers.score_units(context, planned.left, files, texts, load):
                name = line["unit"]
                if "bad" in line:
                    folder.store.replace(record_key("bad", name), json_bytes(line))
                    continue
                progress.add(line, again=name in records)
                # Another attempt may have been first; its record counts.
                won = line.pop("published")
                records[name] = line if won else folder.records_one("units", name)
    return records


def _with_known(planned: Planned, workers: Engine, texts: Texts | None, out: TextIO) -> JobContext:
    """Return the context with the scores that a former job has, if one is named."""
    context, plan = planned.context, planned.plan
    if not context.config.reuse:
        return context
    say = Steps(out, context.config.progress_s, "looking for known scores")
    slices = plan.slices[plan.former_units :]
    each = max(1, plan.pairs // max(1, sum(plan.rows.values())))
    known = find_known(workers, context, slices, plan.files, texts, say, pairs_per_row=each)
    return replace(context, known=known)


def settle(planned: Planned, units: dict[str, dict[str, Any]]) -> Settled:
    """Set aside the rows of unreadable files, or raise TooManyBadFiles beyond the limit.

    A later run tries them again as long as they are not settled.
    """
    folder = planned.context.folder
    bad = {name: line for name, line in folder.records("bad").items() if name not in units}
    settled = [record for record in units.values() if record.get("bad")]
    reasons = planned.plan.bad_files | planned.plan.former.get("bad", {})
    reasons |= {line["file"]: line["bad"] for line in [*settled, *bad.values()]}
    refuse_bad_files(reasons, planned.context.config.max_bad_files)
    rows = planned.plan.rows
    for name, line in bad.items():
        record = unreadable(line, rows[name])
        folder.publish("units", name, record)
        units = units | {name: record}
    named = [{"path": path, "reason": reason} for path, reason in sorted(reasons.items())]
    return Settled(JobRecords(units), named)


def rank(planned: Planned, settled: Settled, workers: Engine, out: TextIO) -> Settled:
    """Rank the queries that lie in several units and give files their size; return all records."""
    context, say = planned.context, partial(Steps, out, planned.context.config.progress_s)
    folder, config = context.folder, context.config
    records = JobRecords(in_plan_order(planned.plan.rows, settled.records))
    written = [record["data"]["bytes"] for record in records.units.values() if record["data"]]
    small = planned.plan.pairs <= FEW_PAIRS and sum(written) <= FEW_BYTES
    tasks: Tasks = Nearby(workers) if small else workers
    if context.buckets:
        records = rank_over_units(tasks, context, records.units, say("ranking over units"))
    if config.file_size or context.buckets:
        records = write_files(tasks, folder, records, config, say("writing files"))
    if context.buckets:
        check_ranks(tasks, folder, records, config.names, say("checking ranks"))
    return Settled(records, settled.bad)


def commit(planned: Planned, ranked: Settled, address: str, out: TextIO) -> dict[str, Any]:
    """Make the finished units the result of the job at the address; return its manifest."""
    config, folder, records = planned.context.config, planned.context.folder, ranked.records
    units = records.newest()
    if config.duplicates == "refuse":
        refuse_duplicates(units.values())
    header = manifest_header(planned.plan, config, address, units) | {"bad_files": ranked.bad}
    rows, buckets = planned.plan.rows, planned.plan.buckets
    say = Steps(out, config.progress_s, "committing")
    names = None if buckets else config.names  # else the workers have checked the ranks
    made = manifest.commit(folder, rows, records, header, buckets=buckets, names=names, say=say)
    write_extras(folder.store, made, config, records)
    return made
