"""The commit protocol as a state machine: workers of several owners attempt, publish and die."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pipelines
from pipelines.commits.checks import Incomplete
from pipelines.commits.manifest import commit
from pipelines.commits.records import BALANCE, Fenced, JobFolder, epoch_key, newest_epoch
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.ranks.parquet_file import write_file
from rerank_core import InvalidRequest

UNITS = 4
ROWS = 3
MEMORY = Path("/dev/shm")


class Protocol(RuleBasedStateMachine):
    """Whatever happens: each row once after the commit, and none to be seen before."""

    owners: tuple | list = ()

    @initialize()
    def start(self):
        place = str(MEMORY) if MEMORY.is_dir() else None
        self.root = Path(tempfile.mkdtemp(dir=place))
        self.store = open_store(self.root)
        self.owners = []
        self.pending: list[tuple[JobFolder, str, dict]] = []
        self.published: set[str] = set()
        self.committed = False
        units = [
            {"index": n, "file": 0, "start": n * ROWS, "stop": (n + 1) * ROWS} for n in range(UNITS)
        ]
        self.store.create_json(
            "_job/plan.json",
            {
                "slices": [{"file": 0, "first": 0, "last": 1, "start": 0, "units": units}],
                "buckets": 0,
            },
        )
        self.take_over()

    def teardown(self):
        if self.owners:
            shutil.rmtree(self.root)

    @rule()
    def take_over(self):
        epoch = newest_epoch(self.store) + 1
        assert self.store.create_json(epoch_key(epoch), {})
        self.owners.append(JobFolder(self.store, epoch))

    @precondition(lambda self: not self.committed)
    @rule(unit=st.integers(0, UNITS - 1), owner=st.integers(0, 10))
    def attempt(self, unit, owner):
        folder = self.owners[owner % len(self.owners)]
        name = f"{unit:06d}"
        rows = pa.table({"row": [unit * ROWS + n for n in range(ROWS)]})
        record = {
            "counts": dict.fromkeys(BALANCE, 0)
            | {"rows_in": ROWS, "rows_out": ROWS, "pairs_in": ROWS, "pairs_out": ROWS},
            "data": write_file(folder, name, [rows]),
        }
        self.pending.append((folder, name, record))

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 100))
    def publish(self, which):
        folder, name, record = self.pending.pop(which % len(self.pending))
        if folder is not self.owners[-1]:
            with pytest.raises(Fenced):
                folder.publish("units", name, record)
            return
        won = folder.publish("units", name, record)
        assert won == (name not in self.published)
        self.published.add(name)
        if not won:
            folder.drop("data", record["data"])

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 100))
    def worker_dies(self, which):
        self.pending.pop(which % len(self.pending))

    def commit(self, planned):
        commit(self.owners[-1], planned, self.owners[-1].all_records(), {"config": {"names": {}}})

    @rule()
    def try_to_commit(self):
        planned = {f"{n:06d}": ROWS for n in range(UNITS)}
        if len(self.published) < UNITS:
            with pytest.raises(Incomplete):
                self.commit(planned)
        else:
            self.commit(planned)
            self.committed = True

    @invariant()
    def readers_see_all_or_nothing(self):
        if not self.owners:
            return
        if not self.committed:
            with pytest.raises(InvalidRequest):
                pipelines.read_output(self.root)
            assert pads.dataset(self.root).files == []
            return
        assert sorted(pads.dataset(self.root).to_table()["row"].to_pylist()) == list(
            range(UNITS * ROWS)
        )
        assert verify(self.root)["rows_out"] == UNITS * ROWS


Protocol.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestProtocol = Protocol.TestCase
