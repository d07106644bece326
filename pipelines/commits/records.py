"""The job's folder: where things lie, which units have a record, and who may write.

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
import secrets
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.commits import store
from rerank_core import RerankError

MANIFEST, SUCCESS, DATA, QUARANTINE = "_manifest.json", "_SUCCESS", "data", "_quarantine"
_READERS = 32

# What the account of every unit holds, for rows and for pairs.
BALANCE = {
    f"{kind}_{end}" for kind in ("rows", "pairs") for end in ("in", "out", "cut", "quarantined")
}


class OutputRefused(RerankError):
    """The output folder is not ours to write to: foreign, held by another job, or of another."""


class Fenced(RerankError):
    """A newer job has taken this output over; this one must stop writing."""


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
class JobRecords:
    """What is done, by name: scored units, buckets ranked over units, these ranks scattered to
    groups of units, the units written again with them, and files of the rows of several units.
    """

    units: dict[str, dict[str, Any]]
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)
    scattered: dict[str, dict[str, Any]] = field(default_factory=dict)
    final: dict[str, dict[str, Any]] = field(default_factory=dict)
    packed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def newest(self) -> dict[str, dict[str, Any]]:
        """Return the record of each unit that counts."""
        return self.units | self.final


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
        return set(store.names(self.job / stage, ".json"))

    def records(self, stage: str, names: Collection[str] | None = None) -> dict[str, Any]:
        """Return the records of a stage, or those that are named, by name in order.

        Reads many at once: each may be a round trip to a server.
        """
        wanted = sorted(self.done(stage) if names is None else names)
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(store.read_json, [self.record(stage, name) for name in wanted])
            return dict(zip(wanted, found, strict=True))

    def all_records(self) -> JobRecords:
        """Read every record of the job."""
        return JobRecords(**{field.name: self.records(field.name) for field in fields(JobRecords)})

    def records_one(self, stage: str, name: str) -> dict[str, Any]:
        """Return one record, which must exist."""
        return dict(store.read_json(self.record(stage, name)))

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
        if not store.create(self.job / folder / file, content):
            raise FileExistsError(file)
        digest = hashlib.sha256(content).hexdigest()
        return {"file": file, "bytes": content.nbytes, "sha256": digest}

    def publish(self, stage: str, name: str, record: dict[str, Any]) -> bool:
        """Make a unit's work count; False if another attempt was first. Raises Fenced."""
        self.refuse_if_fenced()
        return store.create_json(self.record(stage, name), {**record, "epoch": self.epoch})

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
    return max((int(name) for name in store.names(root / "_job" / "epochs", ".json")), default=0)
