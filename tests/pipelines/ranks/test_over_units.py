import json
import sys
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import LEXICAL, InProcess, job

from pipelines import job as steps
from pipelines.commits.records import BALANCE, JobFolder, attempt_key
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext
from pipelines.inputs.units import unit_name
from pipelines.ranks import over_units
from pipelines.ranks.bucket import task_rows
from pipelines.ranks.moves import InputOrder, input_order
from pipelines.ranks.output_files import write_files
from pipelines.ranks.parquet_file import write_file
from pipelines.ranks.rows import SCORED, in_parts, read_rows, scored_rows
from pipelines.ranks.steps import unit_groups
from pipelines.ranks.within_unit import ranks_within

entries = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, -2.0])))


def by_hand(groups, raw):
    ranks = [0] * len(raw)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        for rank, i in enumerate(sorted(members, key=lambda i: -raw[i]), start=1):
            ranks[i] = rank
    return ranks


@settings(deadline=None)
@given(entries)
def test_ranks_are_descending_within_each_group_and_ties_keep_their_order(rows):
    groups = np.array([g for g, _ in rows], dtype=np.int64)
    raw = np.array([r for _, r in rows], dtype=np.float32)
    assert ranks_within(groups, raw).tolist() == by_hand(groups.tolist(), raw.tolist())


def publish_unit(folder, name, rows, top_k):
    """Leave what a scored unit leaves: its rows with ranks of its own, scores beside, a record."""
    groups = np.array([g for g, _ in rows], dtype=np.int64)
    raw = np.array([r for _, r in rows], dtype=np.float32)
    ranks = ranks_within(groups, raw)
    kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
    columns = {"row": pa.array(kept, pa.int64()), "rank": pa.array(ranks[kept], pa.int32())}
    data = None
    if len(kept):
        order = InputOrder(*(values[kept] for values in input_order(groups)))
        scores = scored_rows(groups[kept], [f"q{g}" for g in range(6)], raw[kept], order).tobytes()
        data = write_file(folder, name, [pa.table(columns)], lambda: {"beside": scores})
    counts = dict.fromkeys(BALANCE, 0) | {"rows_in": len(rows), "rows_out": len(kept)}
    counts["rows_cut"] = len(rows) - len(kept)
    record = {"counts": counts, "reasons": {}, "data": data, "aside": None, "file": "in"}
    assert folder.publish("units", name, record)
    return record


def ranked(engine, context, records, say, group_rows):
    """Rank over units, so many rows in a task, and write the files, of a size that a few have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(over_units, "task_rows", lambda rows: group_rows)
        done = over_units.rank_over_units(engine, context, records, say)
    return write_files(engine, context.folder, done, context.config, say)


def rows_in(folder, data):
    """The rows of a file of several units; none has it where top_k has cut them all."""
    if data is None:
        return []
    table = pq.read_table(folder.store.root / attempt_key("data", data))
    assert table.num_rows
    return list(zip(*table.to_pydict().values(), strict=True))


def context_of(folder, buckets, top_k):
    config = RerankJobConfig(
        input=("in",), output="out", scorer=LEXICAL, top_k=top_k, file_size=2_000, keep_scores=False
    )
    return JobContext(folder, config, "pairs", buckets)


@pytest.mark.seconds
@settings(deadline=None, max_examples=40)
@given(
    units=st.lists(entries, min_size=1, max_size=6),
    buckets=st.integers(1, 3),
    group_rows=st.integers(1, 20),
    top_k=st.none() | st.integers(1, 4),
)
def test_ranking_over_units_equals_ranking_everything_at_once(
    tmp_path_factory, units, buckets, group_rows, top_k
):
    folder = JobFolder(open_store(tmp_path_factory.mktemp("merge")), 0)
    records = {
        unit_name(n): publish_unit(folder, unit_name(n), rows, top_k)
        for n, rows in enumerate(units)
    }
    said = []
    context = context_of(folder, buckets, top_k)
    done = ranked(InProcess(), context, records, lambda *step: said.append(step), group_rows)
    counts = {name: record["counts"] for name, record in done.newest().items()}
    together = []
    for record in done.final.values():
        rows = iter(rows_in(folder, record["data"]))
        for name in record["units"]:
            left = islice(rows, counts[name]["rows_out"])
            together += [(int(name), row, rank) for row, rank in left]
        assert not [*rows]
    assert all(c["rows_in"] == c["rows_out"] + c["rows_cut"] for c in counts.values())
    flat = [(unit, row, g, r) for unit, rows in enumerate(units) for row, (g, r) in enumerate(rows)]
    ranks = by_hand([g for _, _, g, _ in flat], [r for _, _, _, r in flat])
    assert together == [
        (unit, row, rank)
        for (unit, row, _, _), rank in zip(flat, ranks, strict=True)
        if not top_k or rank <= top_k
    ]
    assert {step for step, *_ in said} == {"gathered", "ranks", "scattered", "final"}


def test_only_units_that_share_a_query_get_new_ranks(tmp_path):
    folder = JobFolder(open_store(tmp_path), 0)
    rows = {0: [(0, 1.0)], 1: [(1, 1.0)], 2: [(0, 2.0)], 3: []}
    records = {unit_name(n): publish_unit(folder, unit_name(n), r, None) for n, r in rows.items()}
    done = ranked(InProcess(), context_of(folder, 2, None), records, lambda *step: None, 2)
    moved = [name for group in done.final.values() for name, now in group["units"].items() if now]
    assert moved == [unit_name(0), unit_name(2)]
    assert sum(record["rows"] for record in done.scattered.values()) == 2


class Counting(InProcess):
    """Counts the tasks that run."""

    def __init__(self):
        self.tasks = 0

    def run_tasks(self, items, task):
        self.tasks += len(items)
        return super().run_tasks(items, task)


def test_steps_that_are_done_are_not_done_again(tmp_path):
    folder, engine = JobFolder(open_store(tmp_path), 0), Counting()
    rows = [[(0, float(n)), (1, 0.5)] for n in range(8)]
    records = {unit_name(n): publish_unit(folder, unit_name(n), r, 3) for n, r in enumerate(rows)}
    first = ranked(engine, context_of(folder, 3, 3), records, lambda *step: None, 4)
    assert engine.tasks == 4 + 3 + 4 + len(first.final)
    again = ranked(engine, context_of(folder, 3, 3), records, lambda *step: None, 4)
    assert engine.tasks == 4 + 3 + 4 + len(first.final)
    assert json.dumps(again.final) == json.dumps(folder.records("final"))


def test_units_are_gathered_in_neighbours_of_a_bounded_size():
    assert unit_groups([3, 3, 3, 10, 1, 0, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 7)]
    assert unit_groups([1] * 5, 6, most_units=2) == [(0, 2), (2, 4), (4, 5)]
    assert unit_groups([], 6) == []


def test_groups_times_buckets_grow_with_the_rows_and_not_with_their_square():
    counts = [(rows, -(-rows // task_rows(rows))) for rows in (10**8, 10**9, 10**10, 10**12)]
    assert counts == [(10**8, 25), (10**9, 80), (10**10, 250), (10**12, 2500)]


@given(st.lists(st.integers(0, 4)))
def test_a_part_of_a_file_has_its_rows_in_their_order(tmp_path_factory, parts):
    rows = np.zeros(len(parts), SCORED)
    rows["place"] = np.arange(len(parts))
    store = open_store(tmp_path_factory.mktemp("parts"))
    body, ends = in_parts(rows, np.array(parts, np.int64), 5)
    store.replace("f", body)
    for number, bounds in enumerate(pairwise(ends)):
        expected = [place for place, part in enumerate(parts) if part == number]
        assert read_rows(store, "f", bounds, SCORED)["place"].tolist() == expected


@pytest.mark.parametrize(("few", "asked"), [(600, 0), (599, 6)])
def test_a_small_job_asks_no_worker_for_a_step_of_one_task(
    tmp_path, pairs_input, monkeypatch, few, asked
):
    monkeypatch.setattr(steps, "FEW_PAIRS", few)
    engine = Counting()
    made = job(pairs_input, tmp_path / "out", engine=engine)
    assert (engine.tasks, verify(tmp_path / "out")) == (asked, made["counts"])


def test_several_tasks_of_a_small_job_are_left_to_the_workers(tmp_path, pairs_input):
    engine = Counting()
    made = job(pairs_input, tmp_path / "out", engine=engine, file_size=20_000)
    assert engine.tasks == len(made["files"]) > 1
