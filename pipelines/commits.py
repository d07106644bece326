"""The job's folder: who owns it, what is planned, what is done, and the commit at the end.

OUT/data/part-*.parquet     the result; appears in one rename, when everything is done
OUT/_quarantine/*.parquet   rows set aside, with reasons
OUT/_manifest.json          what ran and every file with its rows, bytes and SHA-256
OUT/_SUCCESS                written last
OUT/_report.html            the same for people; not part of the commit
OUT/_job/                   plan, epochs (owners), records of units, work in progress

A unit is done when its record exists. Records are created exclusively, so the first of two workers
wins and the loser's file is never read. This module does not know what is scored.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from rerank_core import RerankError

MANIFEST, SUCCESS, DATA, QUARANTINE = "_manifest.json", "_SUCCESS", "data", "_quarantine"


# What the account of every unit holds, for rows and for pairs.
BALANCE = {
    f"{kind}_{end}" for kind in ("rows", "pairs") for end in ("in", "out", "cut", "quarantined")
}


class OutputRefused(RerankError):
    """The output folder is not ours to write to: foreign, held by another job, or of another."""


class Fenced(RerankError):
    """A newer job has taken this output over; this one must stop writing."""


class Incomplete(RerankError):
    """The records do not add up to the plan, so nothing is committed."""


def is_job_folder(root: Path) -> bool:
    """Say whether this tool made the folder."""
    job = root / "_job"
    if (job / "epochs").is_dir():
        return True
    # A job may be killed between its first folders.
    return list(root.iterdir()) == [job] and {p.name for p in job.iterdir()} <= {"heartbeats"}


def is_complete(root: Path) -> bool:
    """Say whether a finished result is there."""
    return (root / SUCCESS).is_file()


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The paths of one job and the epoch under which this process may write."""

    root: Path
    epoch: int

    @property
    def job(self) -> Path:
        """Where plan, records and work in progress lie."""
        return self.root / "_job"

    def record(self, stage: str, name: str) -> Path:
        """Return the path of one record."""
        return self.job / stage / f"{name}.json"

    def done(self, stage: str) -> set[str]:
        """Return the names of the units (or buckets) that have a record."""
        return set(storage.names(self.job / stage, ".json"))

    def records(self, stage: str) -> dict[str, Any]:
        """Return all records of a stage, by name."""
        names = storage.names(self.job / stage, ".json")
        return {name: storage.read_json(self.record(stage, name)) for name in names}

    def records_one(self, stage: str, name: str) -> dict[str, Any]:
        """Return one record, which must exist."""
        return dict(storage.read_json(self.record(stage, name)))

    def write_parquet(self, folder: str, name: str, table: pa.Table) -> dict[str, Any]:
        """Write an attempt file; return its description for the record."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return {**self.write_bytes(folder, name, ".parquet", sink.getvalue())} | {
            "rows": table.num_rows
        }

    def write_bytes(self, folder: str, name: str, suffix: str, body: Any) -> dict[str, Any]:
        """Write an attempt file under a name no other attempt has."""
        file = f"part-{name}-{self.epoch}-{secrets.token_hex(4)}{suffix}"
        content = memoryview(body)
        if not storage.create(self.job / folder / file, content):
            raise FileExistsError(file)
        digest = hashlib.sha256(content).hexdigest()
        return {"file": file, "bytes": content.nbytes, "sha256": digest}

    def publish(self, stage: str, name: str, record: dict[str, Any]) -> bool:
        """Make a unit's work count; False if another attempt was first. Raises Fenced."""
        self.refuse_if_fenced()
        return storage.create_json(self.record(stage, name), {**record, "epoch": self.epoch})

    def refuse_if_fenced(self) -> None:
        """Raise Fenced when a newer job owns the folder."""
        newest = newest_epoch(self.root)
        if newest != self.epoch:
            raise Fenced(f"epoch {self.epoch} was taken over by epoch {newest}")

    def drop(self, folder: str, description: dict[str, Any] | None) -> None:
        """Delete an attempt file whose record lost."""
        if description:
            (self.job / folder / description["file"]).unlink(missing_ok=True)


def newest_epoch(root: Path) -> int:
    """Return the highest epoch, 0 for none."""
    return max((int(name) for name in storage.names(root / "_job" / "epochs", ".json")), default=0)


def totals(records: list[dict[str, Any]]) -> dict[str, int]:
    """Add up the counts of records."""
    keys = sorted(BALANCE.union(*(record["counts"] for record in records)))
    return {key: sum(record["counts"].get(key, 0) for record in records) for key in keys}


def check_conservation(name: str, counts: dict[str, int]) -> None:
    """Raise Incomplete unless everything that went in came out, was cut by top_k or set aside."""
    for kind in ("rows", "pairs"):
        went_in = counts[f"{kind}_in"]
        out, cut, aside = (counts[f"{kind}_{end}"] for end in ("out", "cut", "quarantined"))
        if went_in != out + cut + aside:
            raise Incomplete(
                f"{name}: {kind} in {went_in} != out {out} + cut by top_k {cut} + set aside {aside}"
            )


def commit(folder: JobFolder, planned: dict[str, int], header: dict[str, Any]) -> dict[str, Any]:
    """Turn finished units into the result. Idempotent: a killed commit is finished by the next.

    `planned` maps unit names to their rows. Raises Incomplete when a record is missing or counts
    do not add up; then nothing has changed.
    """
    folder.refuse_if_fenced()
    manifest = storage.read_json(folder.root / MANIFEST)
    if manifest is None:
        manifest = _build_manifest(folder, planned, header)
        _sweep(folder, manifest)
        storage.replace(folder.root / MANIFEST, storage.json_bytes(manifest))
    for work, place in (("data", DATA), ("quarantine", QUARANTINE)):
        if (folder.job / work).is_dir() and not (folder.root / place).exists():
            os.rename(folder.job / work, folder.root / place)
    (folder.root / DATA).mkdir(exist_ok=True)
    storage.replace(folder.root / SUCCESS, b"")
    for scratch in ("attempts", "sidecars", "merged"):
        shutil.rmtree(folder.job / scratch, ignore_errors=True)
    return dict(manifest)


def _build_manifest(
    folder: JobFolder, planned: dict[str, int], header: dict[str, Any]
) -> dict[str, Any]:
    records = folder.records("units")
    final = folder.records("final")
    missing = [name for name in planned if name not in records]
    if missing:
        raise Incomplete(f"{len(missing)} units have no record, the first is {missing[0]}")
    chosen = [{**final.get(name, records[name]), "unit": name} for name in planned]
    for record in chosen:
        check_conservation(f"unit {record['unit']}", record["counts"])
        if record["counts"]["rows_in"] != planned[record["unit"]]:
            raise Incomplete(
                f"unit {record['unit']} has {record['counts']['rows_in']} rows;"
                f" the plan says {planned[record['unit']]}"
            )
    counts = totals(chosen)
    check_conservation("job", counts)
    files = [{**r["data"], "unit": r["unit"]} for r in chosen if r["data"]]
    if sum(file["rows"] for file in files) != counts["rows_out"]:
        raise Incomplete("the rows of the data files are not the rows that the units put out")
    aside = [{**r["aside"], "unit": r["unit"]} for r in chosen if r.get("aside")]
    return {**header, "counts": counts, "files": files, "quarantine": aside}


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
