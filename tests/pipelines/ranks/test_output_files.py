"""Files of several units: their size, their order, and that nothing else changes."""

import sys
from pathlib import Path

import duckdb
import polars
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import InProcess, job, rows_of

import pipelines
from pipelines.commits.checks import Incomplete, checked
from pipelines.commits.records import JobFolder, JobRecords
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.identity import JobChanged
from pipelines.ranks.rows import SCORED


@pytest.mark.seconds
def test_files_have_the_size_that_was_asked_for_and_the_rows_of_the_units(tmp_path, pairs_input):
    options = {"unit_pairs": 20, "top_k": 7, "keep_scores": False}
    plain = job(pairs_input, tmp_path / "plain", **options)
    most = 20_000  # of four or five units and their footers
    small = job(pairs_input, tmp_path / "out", file_size=most, **options)
    assert len(plain["files"]) == 1
    assert len(small["files"]) == 8
    assert max(file["bytes"] for file in small["files"]) <= most
    assert small["counts"] == plain["counts"] == verify(tmp_path / "out")
    read = [pipelines.read_output(tmp_path / name).to_table() for name in ("plain", "out")]
    assert read[0].equals(read[1])
    names = {file["file"] for file in small["files"]}
    assert {path.name for path in (tmp_path / "out" / "data").iterdir()} == names
    with pytest.raises(JobChanged, match="file_size"):
        job(pairs_input, tmp_path / "out", unit_pairs=20, top_k=7)


def test_units_of_nested_rows_keep_their_files_unless_a_size_is_asked_for(
    tmp_path, make_rows, write_files
):
    row = {"query": "river", "candidates": make_rows(1, 20)}
    rows = [row | {"query_id": n} for n in range(12)]
    folder = write_files(tmp_path / "in", rows, files=2, group=6)
    plain = job(folder, tmp_path / "plain", unit_pairs=40)
    joined = job(folder, tmp_path / "out", unit_pairs=40, file_size=10**9)
    assert (len(plain["files"]), len(joined["files"])) == (6, 1)
    assert joined["counts"] == plain["counts"] == verify(tmp_path / "out")
    read = [pipelines.read_output(tmp_path / name).to_table() for name in ("plain", "out")]
    assert read[0].equals(read[1])


def test_output_files_hold_nothing_but_their_rows_where_scores_are_not_kept(tmp_path, pairs_input):
    made = job(pairs_input, tmp_path / "out", keep_scores=False)
    for file in made["files"]:
        path = tmp_path / "out" / "data" / file["file"]
        footer = pq.read_metadata(path)
        groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
        columns = [group.column(n) for group in groups for n in range(group.num_columns)]
        held = sum(column.total_compressed_size for column in columns)
        assert path.stat().st_size == 4 + held + footer.serialized_size + 8


@pytest.mark.parametrize("keep", [True, False])
def test_whether_scores_are_kept_is_fixed_when_the_job_begins(tmp_path, pairs_input, keep):
    class Broken(InProcess):
        def run_tasks(self, items, task):
            if "output" not in items[0]:
                return super().run_tasks(items, task)
            next(super().run_tasks(items, task))
            raise InterruptedError

    options = {"unit_pairs": 20, "file_size": 20_000}
    with pytest.raises(InterruptedError):
        job(pairs_input, tmp_path / "out", engine=Broken(), keep_scores=keep, **options)
    made = job(pairs_input, tmp_path / "out", keep_scores=not keep, **options)
    plain = job(pairs_input, tmp_path / "plain", keep_scores=keep, **options)
    assert [file["rows"] for file in made["files"]] == [file["rows"] for file in plain["files"]]
    assert {("scored" in f, "beside" in f) for f in made["files"]} == {(keep, keep)}
    assert made["config"]["keep_scores"] == keep
    assert verify(tmp_path / "out") == verify(tmp_path / "plain")


def test_a_job_without_rows_has_no_files(tmp_path, write_files, make_rows):
    rows = [row | {"text": None} for row in make_rows(2, 5)]
    folder = write_files(tmp_path / "in", rows, files=1, group=10)
    made = job(folder, tmp_path / "out", unit_pairs=3, file_size=1000)
    assert (made["files"], made["counts"]["rows_quarantined"]) == ([], 10)
    assert verify(tmp_path / "out") == made["counts"]


def test_a_file_that_is_missing_or_short_stops_the_commit(tmp_path, pairs_input):
    class Forgetful(InProcess):
        def run_tasks(self, items, task):
            kept = [i for i in items if "output" not in i or i is not items[-1]]
            return super().run_tasks(kept, task)

    with pytest.raises(Incomplete, match="step final left no record"):
        job(pairs_input, tmp_path / "out", engine=Forgetful(), file_size=20_000)
    made = job(pairs_input, tmp_path / "out", file_size=20_000)
    assert len(made["files"]) > 1
    records = JobFolder(open_store(tmp_path / "out"), 0).all_records()
    planned = {name: record["counts"]["rows_in"] for name, record in records.units.items()}
    rest = dict(list(records.final.items())[1:])
    with pytest.raises(Incomplete, match="not of all units, each once"):
        checked(planned, 0, JobRecords(records.units, final=rest))
    first = records.final["000000"]
    short = first | {"data": first["data"] | {"rows": 1}}
    spoiled = records.final | {"000000": short}
    with pytest.raises(Incomplete, match="has not the rows of its units"):
        checked(planned, 0, JobRecords(records.units, final=spoiled))
    assert len(rows_of(tmp_path / "out")) == pq.read_table(tmp_path / "out").num_rows == 600


def test_readers_of_parquet_do_not_see_scores_that_are_kept(tmp_path, pairs_input):
    made = job(pairs_input, tmp_path / "out")
    for file in made["files"]:
        start, stop = file["beside"]
        assert stop - start == SCORED.itemsize * file["rows"]
        path = tmp_path / "out" / "data" / file["file"]
        rows = pq.read_table(path).to_pylist()
        assert duckdb.sql(f"select * from '{path}'").to_arrow_table().to_pylist() == rows
        assert polars.read_parquet(path).to_dicts() == rows
        assert len(rows) == file["rows"]
