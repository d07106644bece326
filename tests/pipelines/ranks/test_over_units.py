import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import LEXICAL, InProcess

from pipelines.commits.records import BALANCE, JobFolder
from pipelines.commits.store import open_store
from pipelines.config import RerankJobConfig
from pipelines.engine import JobContext
from pipelines.inputs.units import unit_name
from pipelines.ranks.over_units import rank_over_units, unit_groups
from pipelines.ranks.rows import SCORED, in_parts, read_part, scored_rows
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
    """Leave what a scored unit leaves: its rows with ranks of its own, a sidecar and a record."""
    groups = np.array([g for g, _ in rows], dtype=np.int64)
    raw = np.array([r for _, r in rows], dtype=np.float32)
    ranks = ranks_within(groups, raw)
    kept = np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))
    columns = {"row": pa.array(kept, pa.int64()), "rank": pa.array(ranks[kept], pa.int32())}
    data, sidecar = None, None
    if len(kept):
        data = folder.write_parquet("data", name, pa.table(columns))
        body = scored_rows(groups[kept], [f"q{g}" for g in range(6)], raw[kept]).tobytes()
        sidecar = folder.write_bytes("sidecars", name, ".rows", body)
    counts = dict.fromkeys(BALANCE, 0) | {"rows_in": len(rows), "rows_out": len(kept)}
    counts["rows_cut"] = len(rows) - len(kept)
    record = {"counts": counts, "reasons": {}, "data": data, "aside": None, "sidecar": sidecar}
    assert folder.publish("units", name, record)
    return record


def context_of(folder, buckets, top_k):
    config = RerankJobConfig(input=("in",), output="out", scorer=LEXICAL, top_k=top_k)
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
    done = rank_over_units(
        InProcess(), context_of(folder, buckets, top_k), records, lambda *step: said.append(step),
        group_rows,
    )  # fmt: skip
    together = []
    for unit, record in enumerate(done.newest().values()):
        if record["data"]:
            table = folder.read_table("data", record["data"])
            rows = zip(*table.to_pydict().values(), strict=True)
            together += [(unit, row, rank) for row, rank in rows]
    flat = [(unit, row, g, r) for unit, rows in enumerate(units) for row, (g, r) in enumerate(rows)]
    ranks = by_hand([g for _, _, g, _ in flat], [r for _, _, _, r in flat])
    assert together == [
        (unit, row, rank)
        for (unit, row, _, _), rank in zip(flat, ranks, strict=True)
        if not top_k or rank <= top_k
    ]
    assert {step for step, *_ in said} == {"gathered", "ranks", "scattered", "final"}


def test_only_units_that_share_a_query_are_written_again(tmp_path):
    folder = JobFolder(open_store(tmp_path), 0)
    rows = {0: [(0, 1.0)], 1: [(1, 1.0)], 2: [(0, 2.0)], 3: []}
    records = {unit_name(n): publish_unit(folder, unit_name(n), r, None) for n, r in rows.items()}
    done = rank_over_units(InProcess(), context_of(folder, 2, None), records, lambda *step: None, 2)
    assert sorted(done.final) == [unit_name(0), unit_name(2)]


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
    first = rank_over_units(engine, context_of(folder, 3, 3), records, lambda *step: None, 4)
    assert engine.tasks == 4 + 3 + 4 + 8
    again = rank_over_units(engine, context_of(folder, 3, 3), records, lambda *step: None, 4)
    assert engine.tasks == 4 + 3 + 4 + 8
    assert json.dumps(again.newest()) == json.dumps(
        {name: folder.records_one("final", name) for name in first.newest()}
    )


def test_units_are_gathered_in_neighbours_of_a_bounded_size():
    assert unit_groups([3, 3, 3, 10, 1, 0, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 7)]
    assert unit_groups([], 6) == [(0, 0)]


@given(st.lists(st.integers(0, 4)))
def test_a_part_of_a_file_has_its_rows_in_their_order(tmp_path_factory, parts):
    rows = np.zeros(len(parts), SCORED)
    rows["place"] = np.arange(len(parts))
    store = open_store(tmp_path_factory.mktemp("parts"))
    store.replace("f", in_parts(rows, np.array(parts, np.int64), 5))
    for number in range(5):
        expected = [place for place, part in enumerate(parts) if part == number]
        assert read_part(store, "f", number, SCORED)["place"].tolist() == expected


def test_files_are_opened_a_fixed_number_of_times_for_each_unit_and_pair_of_group_and_bucket(
    tmp_path,
):
    costs = []
    for units in (8, 80):
        folder = JobFolder(open_store(tmp_path / str(units)), 0)
        rows = [[(g, float(n)) for g in range(6)] for n in range(units)]
        records = {
            unit_name(n): publish_unit(folder, unit_name(n), r, None) for n, r in enumerate(rows)
        }
        opened = []

        def count(event, arguments, folder=folder, opened=opened):
            if event == "open" and str(arguments[0]).startswith(f"{folder.store}/"):
                opened.append(arguments[0])

        sys.addaudithook(count)
        groups = buckets = units // 8
        context = context_of(folder, buckets, None)
        rank_over_units(InProcess(), context, records, lambda *step: None, 6 * 8)
        costs.append((len(opened) - 4 * groups * buckets) / units)
    assert costs[1] <= costs[0] < 25
