"""Steps of tasks that leave a record each: what has one is not done again. It does not know Ray.

What a task hands on to the next step is a file in parts, whose record says where each part starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.commits.checks import Incomplete
from pipelines.commits.records import JobFolder, scratch_key
from pipelines.commits.store import at_once
from pipelines.engine import Tasks
from pipelines.inputs.units import Say
from pipelines.ranks.rows import Rows, read_rows

Record = dict[str, Any]
# A file in parts, and where in it each part starts; the last number is where all end.
Parts = tuple[str, list[int]]


def run_step(
    engine: Tasks,
    folder: JobFolder,
    say: Say,
    stage: str,
    items: list[dict[str, Any]],
    task: Callable[[dict[str, Any]], dict[str, str]],
) -> dict[str, Record]:
    """Run the tasks that have no record yet; return the records of all, in the items' order."""
    done = folder.done(stage) & {item["name"] for item in items}
    records = folder.records(stage, done)
    say(stage, len(records), len(items))
    for line in engine.run_tasks([item for item in items if item["name"] not in done], task):
        records[line["name"]] = line["record"]
        say(stage, len(records), len(items))
    missing = [item["name"] for item in items if item["name"] not in records]
    if missing:
        raise Incomplete(
            f"{len(missing)} of {len(items)} tasks of the step {stage} left no record, the first"
            f" is {missing[0]}; the same command again does them"
        )
    return {item["name"]: records[item["name"]] for item in items}


def unit_groups(
    sizes: Sequence[int], most: int, most_units: int | None = None
) -> list[tuple[int, int]]:
    """Return ranges of neighbouring units, given their sizes, of `most` together or of one unit."""
    groups, first, held = [], 0, 0
    for unit, size in enumerate(sizes):
        full = held + size > most or unit - first == most_units
        if unit > first and full:
            groups.append((first, unit))
            first, held = unit, 0
        held += size
    return [*groups, (first, len(sizes))] if sizes else []


def publish(
    folder: JobFolder, stage: str, name: str, made: tuple[bytes, list[int]], **more: Any
) -> dict[str, str]:
    """Write a file in parts and its record, unless it has one; return the line of the first."""
    body, ends = made
    file = folder.write_bytes("scratch", f"{stage}-{name}", ".rows", body)
    record = {"file": file, "ends": ends, **more}
    if not folder.publish(stage, name, record):
        folder.drop("scratch", file)
        record = folder.records_one(stage, name)
    return {"line": json.dumps({"name": name, "record": record})}


def files_of(records: dict[str, Record]) -> list[Parts]:
    """Return the files in parts that a step has left."""
    return [(record["file"]["file"], record["ends"]) for record in records.values()]


def read_parts(folder: JobFolder, files: Sequence[Parts], number: int, kind: np.dtype[Any]) -> Rows:
    """Return the rows that one part has in all of these scratch files, read at once."""

    def read(file: Parts) -> Rows:
        name, ends = file
        bounds = ends[number], ends[number + 1]
        return read_rows(folder.store, scratch_key(name), bounds, kind)

    return np.concatenate([np.zeros(0, kind), *at_once(read, files)])
