"""Takes the scores of pairs that a former job has scored, so that only the others are scored.

A join by hash in four steps, as ranking over units: kept scores are gathered, cut by bucket of
hashes; so are the hashes of the pairs that are to be scored, which are read once for that; each
bucket is matched; and what was found is scattered to units. No task holds more than its part, the
driver none. What tasks leave is named by the former run and the cuts: a job may go on with the
scores of another. It does not know Ray; each step's task may be repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from pipelines.commits.records import DATA, JobFolder
from pipelines.commits.store import Store, at_once
from pipelines.engine import Engine, JobContext
from pipelines.growing.former_scores import Span, kept_scores, refuse_other_weights
from pipelines.growing.kept import WANTED, Known, by_hash, found_in, hashes_of, kept_kind
from pipelines.inputs.joins import Texts
from pipelines.inputs.listing import InputFile
from pipelines.inputs.pairs import extract
from pipelines.inputs.units import Say, Slice, unit_name
from pipelines.ranks.bucket import bucket_count, by_bucket, task_rows
from pipelines.ranks.rows import Rows, as_kind, in_parts, read_rows, with_unit
from pipelines.ranks.steps import Parts, files_of, publish, read_parts, run_step, unit_groups
from pipelines.stages.read import read_tables, slice_items


def find_known(
    engine: Engine,
    context: JobContext,
    slices: list[Slice],
    files: list[InputFile],
    texts: Texts | None,
    say: Say,
    *,
    pairs_per_row: int,
) -> Known:
    """Find the pairs of the slices that the former output has scored; `say` as in ranking."""
    folder, kind = context.folder, kept_kind(context.config.scorer)
    store, former_run, spans = kept_scores(context.config)
    refuse_other_weights(folder, store)
    run = partial(run_step, engine, folder, say)
    scored = [(stop - start) // kind.itemsize for _, start, stop in spans]
    rows = [pairs_per_row * sum(unit.rows for unit in piece.units) for piece in slices]
    most = max(sum(scored), sum(rows))
    buckets, task = bucket_count(most), task_rows(most)
    cuts = hashlib.sha256(f"{former_run} {buckets} {task}".encode()).hexdigest()[:16]

    def name(number: int) -> str:
        return f"{cuts}-{unit_name(number)}"

    items = [
        {"name": name(n), "spans": json.dumps(spans[first:stop])}
        for n, (first, stop) in enumerate(unit_groups(scored, task))
    ]
    gather = partial(gather_kept, folder=folder, former=store, kind=kind, buckets=buckets)
    kept = run("kept", items, gather)
    groups = [slices[first:stop] for first, stop in unit_groups(rows, task)]
    items = slice_items(groups, files, name)
    hashed = run("hashed", items, partial(hash_one, context=context, texts=texts, buckets=buckets))
    units = [[unit.index for piece in group for unit in piece.units] for group in groups]
    starts = [group[0] for group in units]
    match = partial(match_one, folder=folder, kept=files_of(kept), hashed=files_of(hashed))
    match = partial(match, kind=kind, starts=starts)
    matched = run("matched", [{"name": name(b), "bucket": b} for b in range(buckets)], match)
    parts = [
        {"name": name(n), "group": n, "first": group[0], "units": len(group)}
        for n, group in enumerate(units)
    ]
    scatter = partial(scatter_known, folder=folder, files=files_of(matched), kind=kind)
    known = run("known", parts, scatter)
    found = zip(starts, files_of(known), strict=True)
    return Known(tuple((first, file, ends) for first, (file, ends) in found))


def gather_kept(
    item: dict[str, Any], folder: JobFolder, former: Store, kind: np.dtype[Any], buckets: int
) -> dict[str, str]:
    """Put the kept scores of some files of the former output into one file, cut by bucket."""

    def read(span: Span) -> Rows:
        file, start, stop = span
        return read_rows(former, f"{DATA}/{file}", (start, stop), kind)

    rows = np.concatenate([np.zeros(0, kind), *at_once(read, json.loads(item["spans"]))])
    return publish(folder, "kept", item["name"], by_bucket(rows, buckets))


def hash_one(
    item: dict[str, Any], context: JobContext, texts: Texts | None, buckets: int
) -> dict[str, str]:
    """Put the hashes of the pairs of some slices into one file, cut by bucket."""
    rows = np.concatenate([np.zeros(0, WANTED), *_wanted(item, context, texts)])
    return publish(context.folder, "hashed", item["name"], by_bucket(rows, buckets))


def _wanted(item: dict[str, Any], context: JobContext, texts: Texts | None) -> Iterator[Rows]:
    """Yield the hashes of each unit's different pairs."""
    config = context.config
    for unit, table in read_tables(item, config, texts, context.schema):
        copies = config.duplicates == "keep"
        found = extract(table, context.shape, config.names, config.max_text_chars, copies)
        pairs = list(dict.fromkeys(found.pairs))
        wanted = np.zeros(len(pairs), WANTED)
        if pairs:
            wanted["high"], wanted["low"] = hashes_of(pairs).T
        wanted["unit"] = unit.index
        yield wanted


def match_one(
    item: dict[str, Any],
    folder: JobFolder,
    kept: list[Parts],
    hashed: list[Parts],
    *,
    kind: np.dtype[Any],
    starts: list[int],
) -> dict[str, str]:
    """Find the pairs of one bucket among the kept scores; cut what is found by group of units."""
    bucket = int(item["bucket"])
    known = by_hash(read_parts(folder, kept, bucket, kind))
    wanted = read_parts(folder, hashed, bucket, WANTED)
    found = found_in(known, wanted)
    there = np.flatnonzero(found >= 0)
    rows = as_kind(known[found[there]], with_unit(kind))
    rows["unit"] = wanted["unit"][there]
    group = np.searchsorted(starts, rows["unit"], side="right") - 1
    return publish(folder, "matched", item["name"], in_parts(rows, group, len(starts)))


def scatter_known(
    item: dict[str, Any], folder: JobFolder, files: list[Parts], kind: np.dtype[Any]
) -> dict[str, str]:
    """Put what was found for a group of units into one file, cut by unit."""
    rows = read_parts(folder, files, int(item["group"]), with_unit(kind))
    part = rows["unit"] - int(item["first"])
    made = in_parts(as_kind(rows, kind), part, int(item["units"]))
    return publish(folder, "known", item["name"], made)
