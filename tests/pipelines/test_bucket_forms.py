"""Inputs made Parquet by the driver, and other forms of the result, with output in a bucket."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

sys.path.insert(0, str(Path(__file__).parent))
from places import BUSY, REFUSED, Bucket
from protocol import InProcess, job, rows_of

import pipelines
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from rerank_core import RerankError

pytestmark = pytest.mark.seconds

HTTP = {"allow_http": "true"}
ENTRY = "_delta_log/00000000000000000000.json"


@pytest.fixture
def out(s3_server, memory):
    """Where a job of the test writes."""
    yield Bucket(s3_server, memory.name).out("out")
    s3_server.fault = lambda method, key: ""


@pytest.fixture
def table(pairs_input):
    return pq.read_table(pairs_input)


class Stop(Exception):
    """The machine is gone."""


class Stopped(InProcess):
    """Stops when the plan is fixed."""

    def score_units(self, *arguments):
        raise Stop


def test_csv_is_made_parquet_in_the_bucket_and_read_there(tmp_path, table, out):
    pyarrow.csv.write_csv(table, tmp_path / "in.csv")
    manifest = job(tmp_path / "in.csv", out)
    job(tmp_path / "in.csv", tmp_path / "local")
    assert rows_of(out) == rows_of(tmp_path / "local")
    assert [item["path"] for item in manifest["inputs"]] == [str(tmp_path / "in.csv")]
    assert verify(out)["rows_out"] == 600
    assert "input" not in open_store(out).children("_job")  # what was made Parquet is gone


def test_a_job_with_csv_into_a_busy_bucket_loses_no_row(tmp_path, table, out, s3_server):
    pyarrow.csv.write_csv(table, tmp_path / "in.csv")
    asked = []
    s3_server.fault = lambda method, key: (
        BUSY if "_job/input" in key and not asked.append(1) and len(asked) % 7 == 3 else ""
    )
    assert job(tmp_path / "in.csv", out)["counts"]["rows_out"] == 600
    assert len(asked) > 3


def test_made_files_that_may_not_be_read_are_said_as_the_bucket_says_it(
    tmp_path, table, out, s3_server
):
    pyarrow.csv.write_csv(table, tmp_path / "in.csv")
    s3_server.fault = lambda method, key: REFUSED if method == "GET" and "_job/input" in key else ""
    with pytest.raises(RerankError, match=r"no permission [(]AccessDenied[)]; the job"):
        job(tmp_path / "in.csv", out)


def test_a_job_in_a_bucket_keeps_the_version_that_it_began_with(tmp_path, table, out):
    write_deltalake(str(tmp_path / "in"), table)
    with pytest.raises(Stop):
        job(tmp_path / "in", out, engine=Stopped())
    DeltaTable(str(tmp_path / "in")).delete("place = 3")
    assert job(tmp_path / "in", out)["counts"]["rows_out"] == 600
    assert job(tmp_path / "in", out)["counts"]["rows_out"] == 600


def log_of(out):
    return bytes(open_store(out).read(f"data/{ENTRY}"))


def by_place(rows):
    return sorted(rows, key=lambda row: (row["query_id"], row["doc_id"], row["rank"]))


def test_a_result_in_a_bucket_is_a_delta_table_of_the_same_rows(pairs_input, out):
    job(pairs_input, out, top_k=3, format="delta")
    found = DeltaTable(f"{out}/data", storage_options=HTTP)
    assert found.version() == 0
    assert by_place(found.to_pyarrow_table().to_pylist()) == rows_of(out)
    assert verify(out)["rows_out"] == 90
    body = log_of(out)
    job(pairs_input, out, top_k=3, format="delta")
    assert log_of(out) == body


def test_a_delta_table_in_a_bucket_is_read_with_the_environment_alone(tmp_path, pairs_input, out):
    job(pairs_input, out, top_k=3, format="delta")
    names = {"score": "second_score", "rank": "second_rank"}
    manifest = job(f"{out}/data", tmp_path / "two", names=names)
    assert manifest["counts"]["rows_out"] == 90
    assert {item["snapshot"] for item in manifest["inputs"]} == {"Delta version 0"}


def test_a_log_in_a_bucket_is_not_written_over_one_that_came_first(pairs_input, out, s3_server):
    job(pairs_input, out)
    key = f"{out.removeprefix('s3://bucket/')}/data/{ENTRY}"
    theirs = []

    def another_was_first(method, asked):
        if (method, asked) == ("PUT", key) and not theirs:
            theirs.append(b"{}")
            s3_server.client().put_object(Bucket="bucket", Key=key, Body=theirs[0])
        return ""

    s3_server.fault = another_was_first
    with pytest.raises(RerankError, match="result is complete, but not its Delta log"):
        job(pairs_input, out, format="delta")
    assert [log_of(out)] == theirs


def test_a_result_in_a_bucket_is_written_as_json_lines(tmp_path, pairs_input, out):
    job(pairs_input, out, top_k=2, json_lines=str(tmp_path / "rows.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    ordered = pipelines.read_output(out).to_table().to_pylist()
    assert lines == ordered
    assert len(lines) == 60
