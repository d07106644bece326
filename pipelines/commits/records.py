"""The job's folder: where things lie, which units have a record, and who may write.

OUT/data/part-*.parquet     the result; appears when everything is done
OUT/_quarantine/*.parquet   rows set aside, with reasons
OUT/_manifest.json          what ran and every file with its rows, bytes and SHA-256: the commit
OUT/_SUCCESS                written last, when all of that lies in its place
OUT/_report.html            the same for people; not part of the commit
OUT/_job/                   plan, epochs (owners), records of units, work in progress

A unit is done when its record exists. Records are created exclusively, so the first of two workers
wins and the loser's file is never read. This module does not know what is scored.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

from pipelines.commits.store import Store, at_once, damaged, from_json, token
from pipelines.inputs.units import Say, silent, told
from rerank_core import RerankError

MANIFEST, SUCCESS, DATA, QUARANTINE = "_manifest.json", "_SUCCESS", "data", "_quarantine"
REPORT = "_report.html"
# What the job is, and the fingerprint of the weights that score it.
PLAN, MODEL = "_job/plan.json", "_job/model.json"

# What the account of every unit holds, for rows and for pairs.
BALANCE = {
    f"{kind}_{end}" for kind in ("rows", "pairs") for end in ("in", "out", "cut", "quarantined")
}


class OutputRefused(RerankError):
    """The output folder is not ours to write to: foreign, held by another job, or of another."""


class Fenced(RerankError):
    """A newer job has taken this output over; this one must stop writing."""


def is_job_folder(store: Store) -> bool:
    """Say whether this tool made the folder."""
    if newest_epoch(store):
        return True
    # A job may be killed before its first epoch is there.
    first = {"heartbeats", "epochs"}
    return store.children() == ["_job"] and set(store.children("_job")) <= first


def is_complete(store: Store) -> bool:
    """Say whether a finished result is there."""
    return store.size(SUCCESS) is not None


def read_plan(store: Store) -> dict[str, Any] | None:
    """Return the plan of the job there, or None. Raises Damaged for what no job has planned."""
    plan = store.read_json(PLAN)
    if plan is None or (isinstance(plan, dict) and {"identity", "files"} <= plan.keys()):
        return plan
    raise damaged(store.address(PLAN))


def existing_plan(store: Store) -> dict[str, Any]:
    """Return the plan of the job there, which must have one: Damaged."""
    if (plan := read_plan(store)) is None:
        raise damaged(store.address(PLAN))
    return plan


@dataclass(frozen=True, slots=True)
class JobRecords:
    """What is done, by name: scored units, buckets ranked over units, these ranks scattered to
    groups of units, and files of several units, written with them.
    """

    units: dict[str, dict[str, Any]]
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)
    scattered: dict[str, dict[str, Any]] = field(default_factory=dict)
    final: dict[str, dict[str, Any]] = field(default_factory=dict)

    def newest(self) -> dict[str, dict[str, Any]]:
        """Return the record of each unit, with what ranking over units has changed in it."""
        changes: dict[str, dict[str, Any]] = {}
        for group in self.final.values():
            changes |= group["units"]
        return {name: record | changes.get(name, {}) for name, record in self.units.items()}


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where one job lies, and the epoch under which this process may write there.

    Epochs are those of the output, also where a job grows beside it: there they began anew with
    every attempt, and a worker of an abandoned one could write into the next.
    """

    store: Store
    epoch: int
    output: Store | None = None

    def has_epoch(self, epoch: int) -> bool:
        """Say whether the output has had an owner of this number."""
        return (self.output or self.store).size(epoch_key(epoch)) is not None

    def done(self, stage: str) -> set[str]:
        """Return the names of the units (or buckets) that have a record."""
        return set(self.store.names(f"_job/{stage}", ".json"))

    def records(
        self, stage: str, names: Collection[str] | None = None, say: Say = silent
    ) -> dict[str, Any]:
        """Return the records of a stage, or those that are named, by name in order.

        `say` is told how many are read. Raises Damaged.
        """
        wanted = sorted(self.done(stage) if names is None else names)
        keys = [record_key(stage, name) for name in wanted]
        bodies = at_once(self.store.read, keys, told(say, f"{stage} read", len(keys)))
        found = zip(wanted, keys, bodies, strict=True)
        return {n: from_json(body, self.store.address(k), lean_json) for n, k, body in found}

    def all_records(self, say: Say = silent) -> JobRecords:
        """Read every record of the job; `say` is told how many of each stage are read."""
        stages = [field.name for field in fields(JobRecords)]
        return JobRecords(**{stage: self.records(stage, say=say) for stage in stages})

    def records_one(self, stage: str, name: str) -> dict[str, Any]:
        """Return one record, which must exist."""
        return dict(self.store.read_json(record_key(stage, name)))

    def write_bytes(self, folder: str, name: str, suffix: str, body: Any) -> dict[str, Any]:
        """Write an attempt file under a name no other attempt has; return its description."""
        description = {"file": f"part-{name}-{self.epoch}-{token()}{suffix}"}
        content = memoryview(body).cast("B")
        self.store.replace(attempt_key(folder, description), content)
        digest = hashlib.sha256(content).hexdigest()
        return description | {"bytes": content.nbytes, "sha256": digest}

    def publish(self, stage: str, name: str, record: dict[str, Any]) -> bool:
        """Make a unit's work count; False if another attempt was first. Raises Fenced."""
        self.refuse_if_fenced()
        mine = {**record, "epoch": self.epoch, "attempt": token()}
        return self.store.create_json(record_key(stage, name), mine)

    def refuse_if_fenced(self) -> None:
        """Raise Fenced when a newer job owns the folder."""
        # Epochs have no gaps, so the next one is enough: one small question for each unit.
        if self.has_epoch(self.epoch + 1):
            newest = newest_epoch(self.output or self.store)
            raise Fenced(f"epoch {self.epoch} was taken over by epoch {newest}")

    def drop(self, folder: str, *descriptions: dict[str, Any] | None) -> None:
        """Delete attempt files whose record lost."""
        self.store.delete(attempt_key(folder, found) for found in descriptions if found)


def lean_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, keys shared with all others: a driver holds many records."""
    return json.loads(text, object_pairs_hook=_with_shared_keys)


def _with_shared_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in pairs}


def record_key(stage: str, name: str) -> str:
    """Return where a record lies."""
    return f"_job/{stage}/{name}.json"


def attempt_key(folder: str, description: dict[str, Any]) -> str:
    """Return where an attempt file lies until the commit."""
    return f"_job/{folder}/{description['file']}"


def scratch_key(file: str) -> str:
    """Return where a file lies that one step leaves for the next."""
    return attempt_key("scratch", {"file": file})


def epoch_key(epoch: int) -> str:
    """Return where the owner with this number has its name."""
    return f"_job/epochs/{epoch}.json"


def newest_epoch(store: Store) -> int:
    """Return the highest epoch, 0 for none."""
    return max((int(name) for name in store.names("_job/epochs", ".json")), default=0)
