"""No commit with ranks that are not 1 to n for every query, whatever went wrong before it."""

import datetime
import decimal
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import InProcess, job

from pipelines import job as steps
from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete
from pipelines.commits.rank_check import refuse_wrong_ranks
from pipelines.commits.store import open_store


@pytest.fixture(autouse=True)
def on_workers(monkeypatch):
    """Have a small job's steps run where a large one's do."""
    monkeypatch.setattr(steps, "FEW_PAIRS", 0)


class Forgetful(InProcess):
    """Does not run the last of some tasks, as if a listing had missed it."""

    def __init__(self, when: str) -> None:
        self.when = when

    def run_tasks(self, items, task):
        return super().run_tasks(
            [i for i in items if self.when not in i or i is not items[-1]], task
        )


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("files", "step gathered left no record"),
        ("bucket", "step ranks left no record"),
        ("group", "step scattered left no record"),
        ("output", "step final left no record"),
        ("count", "step counted left no record"),
        ("check", "step checked left no record"),
    ],
)
def test_a_merge_that_was_skipped_stops_the_commit_and_the_next_run_does_it(
    tmp_path, pairs_input, when, said
):
    out = tmp_path / "out"
    with pytest.raises(Incomplete, match=said):
        job(pairs_input, out, engine=Forgetful(when))
    assert not (out / "_SUCCESS").exists()
    assert job(pairs_input, out)["counts"]["rows_out"] == 600


class Spoiling(InProcess):
    """Gives one row of a finished unit the rank of another."""

    def run_tasks(self, items, task):
        yield from super().run_tasks(items, task)
        folder = task.keywords["folder"]
        for record in folder.records("final").values():
            path = folder.store.root / "_job" / "data" / record["data"]["file"]
            table = pq.read_table(path)
            ranks = table["rank"].to_pylist()
            place = table.schema.get_field_index("rank")
            wrong = pa.array([ranks[0] % 20 + 1, *ranks[1:]], pa.int32())
            pq.write_table(table.set_column(place, "rank", wrong), path)
            return


def test_ranks_that_are_not_1_to_n_stop_the_commit(tmp_path, pairs_input):
    out = tmp_path / "out"
    with pytest.raises(Incomplete, match="the ranks of 1 queries are not 1 to n; the first has 20"):
        job(pairs_input, out, engine=Spoiling())
    assert not (out / "_manifest.json").exists()


def write(folder, *tables):
    sizes = {}
    for number, table in enumerate(tables):
        path = folder / f"{number}.parquet"
        pq.write_table(table, path)
        sizes[path.name] = path.stat().st_size
    return open_store(folder), sizes


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2, 3], [4]), ([3, 1], [2, 4])],
)
def test_ranks_over_files_that_are_1_to_n_are_right(tmp_path, first, second):
    tables = [pa.table({"query_id": ["q"] * len(r), "rank": r}) for r in (first, second)]
    refuse_wrong_ranks(*write(tmp_path, *tables), ColumnNames())


@pytest.mark.parametrize(
    ("first", "second"), [([1, 2], [2, 4]), ([1, 2], [1, 2]), ([2, 3], [4, 5]), ([1, 1, 4], [4])]
)
def test_ranks_with_a_gap_or_one_twice_are_found(tmp_path, first, second):
    tables = [pa.table({"query_id": ["q"] * len(r), "rank": r}) for r in (first, second)]
    with pytest.raises(Incomplete, match="the first is 'q', with 4 documents"):
        refuse_wrong_ranks(*write(tmp_path, *tables), ColumnNames())


@pytest.mark.seconds
def test_millions_of_ranks_of_one_query_do_not_overflow_the_check(tmp_path):
    ranks = pa.array(range(1, 3_000_001), pa.int32())
    table = pa.table({"query_id": pa.array([1] * 3_000_000, pa.int8()), "rank": ranks})
    refuse_wrong_ranks(*write(tmp_path, table), ColumnNames())


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([uuid.uuid4().bytes] * 2, pa.binary(16)),
        pa.array([decimal.Decimal("1.50")] * 2, pa.decimal128(9, 2)),
        pa.array([datetime.datetime(2026, 1, 2)] * 2, pa.timestamp("us", "UTC")),
        pa.array([True] * 2),
        pa.array(["a"] * 2).dictionary_encode(),
        pa.array([b"\xff\xfe"] * 2).view(pa.string()),
    ],
)
def test_ids_of_any_type_are_told_apart(tmp_path, ids):
    good, bad = (pa.table({"query_id": ids, "rank": ranks}) for ranks in ([2, 1], [1, 1]))
    refuse_wrong_ranks(*write(tmp_path, good), ColumnNames())
    with pytest.raises(Incomplete, match="1 queries"):
        refuse_wrong_ranks(*write(tmp_path, bad), ColumnNames())


@pytest.mark.parametrize(("ranks", "right"), [([1, 2], True), ([2, 1], False), ([1, 3], False)])
def test_candidates_of_nested_rows_are_ranked_in_their_row(tmp_path, ranks, right):
    lists = [[], [{"doc_id": "a", "rank": rank} for rank in ranks], [{"doc_id": "b", "rank": 1}]]
    files = write(tmp_path, pa.table({"query_id": [1, 2, 3], "candidates": lists}))
    if right:
        refuse_wrong_ranks(*files, ColumnNames())
    else:
        with pytest.raises(Incomplete, match="not ranked 1 to n"):
            refuse_wrong_ranks(*files, ColumnNames())
