"""Writes the units' rows once more, with their ranks over units, as files of a size readers like.

Neighbouring units become one file with one record, so that a unit costs one read here. Copies that
only other units show are set aside. It does not know Ray; a task may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.quarantine import copies_table
from pipelines.commits.records import JobFolder, JobRecords, attempt_key, scratch_key
from pipelines.config import RerankJobConfig
from pipelines.engine import Tasks
from pipelines.inputs.pairs import DUPLICATE
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.bucket import apply_ranks, copies_in
from pipelines.ranks.over_units import moved_ranks
from pipelines.ranks.parquet_file import write_file
from pipelines.ranks.rows import (
    RANKED,
    SCORED_WITH_DOCUMENT,
    Rows,
    of_one_file,
    placed,
    read_rows,
    scored_kind,
)
from pipelines.ranks.steps import run_step, unit_groups

# Of a file, where the settings do not say.
FILE_BYTES = 256_000_000
# Units in a file, at most: a task reads them one after the other.
_MOST_UNITS = 256
# What lies beside a file's rows: scores to rank by, and those that later jobs may take over.
_FOR_RANKS, _FOR_OTHERS = "beside", "scored"
# What a task must know of a unit's record.
_KNOWN = ("file", "counts", "reasons", "data")


def write_files(
    engine: Tasks, folder: JobFolder, records: JobRecords, config: RerankJobConfig, say: Say
) -> JobRecords:
    """Write the rows of the units, in plan order, with new ranks as files of one size.

    Scores that are to be kept for later jobs stay beside the rows. Returns the records with those
    of the new files; `say` is as in ranking over units.
    """
    units: list[dict[str, Any]] = [
        {"place": place, "name": name, **{key: record.get(key) for key in _KNOWN}}
        for place, (name, record) in enumerate(records.units.items())
        if record["data"]
    ]
    moved = moved_ranks(records.scattered)
    keep = config.keep_scores
    sizes = [unit["data"]["bytes"] - (0 if keep else _beside(unit["data"])) for unit in units]
    items, size = [], config.file_size or FILE_BYTES
    for number, (first, stop) in enumerate(unit_groups(sizes, size, _MOST_UNITS)):
        group = units[first:stop]
        spans = [moved[unit["place"]] for unit in group if unit["place"] in moved]
        output = json.dumps({"units": group, "ranks": _joined(spans)})
        items.append({"name": unit_name(number), "output": output})
    kept = scored_kind(with_documents=config.duplicates != "keep") if keep else None
    task = partial(write_one, folder=folder, names=config.names, kept=kept)
    return replace(records, final=run_step(engine, folder, say, "final", items, task))


def _beside(data: dict[str, Any]) -> int:
    """Return how many bytes lie beside the rows of a file."""
    return sum(
        stop - start
        for start, stop in (data[what] for what in (_FOR_RANKS, _FOR_OTHERS) if what in data)
    )


def _joined(spans: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the ranges of bytes, which lie side by side in each file, as one of each file."""
    found = []
    for file, parts in groupby(spans, itemgetter(0)):
        starts, stops = zip(*((start, stop) for _, start, stop in parts), strict=True)
        found.append((file, min(starts), max(stops)))
    return found


@dataclass(slots=True)
class _Group:
    """The units of one file: what changes in their records, what is set aside, their scores."""

    folder: JobFolder
    names: ColumnNames
    kept: np.dtype[Any] | None
    rows: int = 0
    scores: list[Rows] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    aside: list[pa.Table] = field(default_factory=list)

    def tables(self, units: list[dict[str, Any]], ranked: Rows) -> Iterator[pa.Table]:
        """Yield the rows of each unit with their final ranks."""
        for unit in units:
            body = self.folder.store.read(attempt_key("data", unit["data"]))
            table = pq.read_table(pa.BufferReader(body))
            mine = ranked[
                slice(*np.searchsorted(ranked["unit"], [unit["place"], unit["place"] + 1]))
            ]
            mine = mine[mine["place"] >= 0]
            self.changes[unit["name"]] = {}
            out = self._reranked(unit, body, table, mine) if len(mine) else table
            if self.kept:
                self._keep(unit, body, mine, table.num_rows)
            self.rows += out.num_rows
            yield out

    def _keep(self, unit: dict[str, Any], body: Any, mine: Rows, rows: int) -> None:
        if _FOR_RANKS in unit["data"]:
            scores = np.frombuffer(_part(unit, body, _FOR_RANKS), self.kept)
            gone = mine["place"][mine["rank"] <= 0]
            self.scores.append(placed(scores, gone, rows, self.rows))
        if _FOR_OTHERS in unit["data"]:
            self.others.append(bytes(_part(unit, body, _FOR_OTHERS)))

    def beside(self) -> dict[str, bytes]:
        """Return what lies beside the rows of all tables."""
        found = {_FOR_RANKS: of_one_file(self.scores).tobytes()} if self.scores else {}
        return found | ({_FOR_OTHERS: b"".join(self.others)} if self.others else {})

    def _reranked(self, unit: dict[str, Any], body: Any, table: pa.Table, mine: Rows) -> pa.Table:
        out = apply_ranks(table, self.names.rank, mine)
        copies = copies_in(mine)
        gone = table.num_rows - out.num_rows
        counts, reasons = dict(unit["counts"]), dict(unit["reasons"])
        for kind in ("rows", "pairs"):
            counts[f"{kind}_out"] -= gone
            counts[f"{kind}_cut"] += gone - len(copies)
            counts[f"{kind}_quarantined"] += len(copies)
        if copies:
            scored = np.frombuffer(_part(unit, body, _FOR_RANKS), SCORED_WITH_DOCUMENT)
            rows = scored["row"][np.isin(scored["place"], copies)].tolist()
            self.aside.append(copies_table(table, copies, rows, unit["file"], self.names))
            reasons[DUPLICATE] = reasons.get(DUPLICATE, 0) + len(copies)
        self.changes[unit["name"]] = {"counts": counts, "reasons": reasons}
        return out


def _part(unit: dict[str, Any], body: Any, what: str) -> memoryview:
    start, stop = unit["data"][what]
    return memoryview(body)[start:stop]


def write_one(
    item: dict[str, Any], folder: JobFolder, names: ColumnNames, kept: np.dtype[Any] | None
) -> dict[str, str]:
    """Write the rows of a few units into one file and publish its record; return a line."""
    given = json.loads(item["output"])
    unit = given["units"][0]
    same = len(given["units"]) == 1 and not given["ranks"]
    if same and (kept or not _beside(unit["data"])):  # it is the file to be written
        record = {"units": {unit["name"]: {}}, "data": unit["data"], "aside": None}
        return _published(folder, str(item["name"]), record)
    parts = [
        read_rows(folder.store, scratch_key(file), (start, stop), RANKED)
        for file, start, stop in given["ranks"]
    ]
    name, group = str(item["name"]), _Group(folder, names, kept)
    ranked = np.concatenate([np.zeros(0, RANKED), *parts])
    data = write_file(folder, name, group.tables(given["units"], ranked), group.beside)
    record = {"units": group.changes, "data": data, "aside": None}
    if group.aside:
        record["aside"] = write_file(folder, name, group.aside, place="quarantine")
    return _published(folder, name, record)


def _published(folder: JobFolder, name: str, record: dict[str, Any]) -> dict[str, str]:
    """Publish a file's record, or drop the file if there is one; return the line of the first."""
    if not folder.publish("final", name, record):
        first = folder.records_one("final", name)
        folder.drop("data", None if record["data"] == first["data"] else record["data"])
        folder.drop("quarantine", record["aside"])
        record = first
    return {"line": json.dumps({"name": name, "record": record})}
