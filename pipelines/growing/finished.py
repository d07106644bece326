"""A finished output to which files are added: each of its files is one unit of the larger job.

Nothing in them is scored again. It does not know how ranks over units are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.commits.checks import totals
from pipelines.commits.delta_log import LOG
from pipelines.commits.records import (
    DATA,
    MANIFEST,
    MODEL,
    QUARANTINE,
    JobFolder,
    attempt_key,
    existing_plan,
)
from pipelines.commits.store import Store, at_once
from pipelines.config import RerankJobConfig
from pipelines.growing.append import refuse_other_schema
from pipelines.growing.exchange import bring
from pipelines.identity import JobChanged
from pipelines.inputs.units import Say, Slice, Unit, told, unit_name
from pipelines.plan_file import Plan, plan_from_json
from pipelines.ranks.parquet_file import write_file

Record = dict[str, Any]
_HISTOGRAMS = ("score_histogram", "token_histogram")
# Of pairs the ranking over units counts them, of old rows too.
_OF_NESTED = ("moves", "rank_scores")


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished output: where it is, its plan and its manifest."""

    store: Store
    plan: Plan
    manifest: Record

    @property
    def slices(self) -> list[Slice]:
        """A slice and a unit for each file of the output; nobody reads their rows again."""
        rows = list(self.plan.rows.values())
        units = [
            Unit(index, 0, 0, sum(rows[first:stop]))
            for index, (first, stop) in enumerate(self._spans())
        ]
        return [Slice(0, 0, 0, 0, (unit,)) for unit in units]

    @property
    def told(self) -> Record:
        """What a plan says of the output that it adds to."""
        told: Record = {"identity": self.plan.identity, "run": self.manifest["run"]["runId"]}
        told["bad"] = {file["path"]: file["reason"] for file in self.manifest["bad_files"]}
        return told | {"units": len(self._spans()), "files": len(self.plan.files)}

    def _spans(self) -> list[tuple[int, int]]:
        """Return which units lie in which file; those without rows go with the ones before."""
        if not self.plan.rows:
            return []  # all of its files were empty, or could not be read
        place = {name: number for number, name in enumerate(self.plan.rows)}
        starts = [place[file["unit"]] for file in self.manifest["files"]]
        return list(pairwise([0, *starts[1:], len(place)]))

    def adopt(self, folder: JobFolder, say: Say) -> None:
        """Make the output's files units of a job that adds to it; what is done is not done again.

        `say` is told a step, and how many of how many files are done.
        """
        spans, done = self._spans(), folder.done("units")
        if all(unit_name(number) in done for number in range(len(spans))):
            return
        if model := self.store.read_json(MODEL):
            folder.store.create_json(MODEL, model)
        for place, work, key in ((DATA, "data", "files"), (QUARANTINE, "quarantine", "quarantine")):
            names = [file["file"] for file in self.manifest[key]]
            bring(self.store, place, folder.store, f"_job/{work}", names, say)
        records = list(JobFolder(self.store, 0).all_records(say).newest().items())
        wanted = [
            (number, records[first:stop])
            for number, (first, stop) in enumerate(spans)
            if unit_name(number) not in done
        ]
        heard = told(say, "units of the finished output", len(wanted))
        at_once(partial(self._adopt_one, folder), wanted, heard)

    def _adopt_one(self, folder: JobFolder, item: tuple[int, Sequence[tuple[str, Record]]]) -> None:
        number, records = item
        names = {name for name, _ in records}
        data, asides = (
            [_without_unit(file) for file in self.manifest[key] if file["unit"] in names]
            for key in ("files", "quarantine")
        )
        histograms = _HISTOGRAMS + (_OF_NESTED if self.plan.shape == "nested" else ())
        record = _one_record([record for _, record in records], histograms)
        record |= {"data": data[0] if data else None, "aside": asides[0] if asides else None}
        if len(asides) > 1:
            bodies = folder.store.read_all(attempt_key("quarantine", aside) for aside in asides)
            tables = [pq.read_table(pa.BufferReader(body)) for body in bodies]
            record["aside"] = write_file(folder, unit_name(number), tables, place="quarantine")
        folder.publish("units", unit_name(number), record)


def finished_at(store: Store) -> Finished:
    """Return the finished output that lies there. Raises Damaged."""
    return Finished(store, plan_from_json(existing_plan(store)), store.read_json(MANIFEST))


def refuse_to_append(
    finished: Finished, config: RerankJobConfig, schema: pa.Schema, texts: str
) -> None:
    """Raise what keeps files of this schema from being added, before anything is scored.

    `texts` is the hash of the tables that texts are looked up in.
    """
    if texts != finished.plan.texts:
        raise JobChanged(
            "--queries or --documents have changed since the output was finished, and with them the"
            " texts of its pairs: take a new --output"
        )
    if finished.plan.schema:
        refuse_other_schema(finished.plan.schema, schema)
    files = finished.manifest["files"]
    if finished.plan.shape == "pairs" and not all("beside" in file for file in files):
        raise JobChanged(
            f"{finished.store} was finished without the scores that ranking new files with it takes"
            " (keep_scores): take a new --output"
        )
    if finished.store.names(f"{DATA}/{LOG}") and config.format != "delta":
        raise JobChanged(
            f"{finished.store} is a Delta table: append to it with --format delta, or it is none"
            " any more"
        )


def _without_unit(file: Record) -> Record:
    return {name: value for name, value in file.items() if name != "unit"}


def _one_record(records: Sequence[Record], histograms: Sequence[str]) -> Record:
    """Return one unit's record for several units'; their files are left to the caller."""
    reasons: Counter[str] = Counter()
    for record in records:
        reasons.update(record["reasons"])
    one: Record = {"file": records[0]["file"], "counts": totals(list(records))}
    one |= {"reasons": dict(reasons), "former": True}
    scored = [record for record in records if "seconds" in record]
    if scored:
        one |= {name: _added([record[name] for record in scored]) for name in histograms}
        one |= {name: sum(record[name] for record in scored) for name in ("retries", "seconds")}
        one |= {"began": min(map(began_s, scored)), "at": max(record["at"] for record in scored)}
    return one


def began_s(record: Record) -> float:
    """Return when the first of a scored unit's pairs was scored, in seconds since 1970."""
    return float(record.get("began", record["at"] - record["seconds"]))


def _added(lists: Sequence[Sequence[int]]) -> list[int]:
    return [sum(numbers) for numbers in zip(*lists, strict=True)]
