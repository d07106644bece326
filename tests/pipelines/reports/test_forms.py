"""Other forms of a finished result: a Delta table over its files, JSON Lines."""

from __future__ import annotations

import json
import math
import shutil
import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.verify import verify
from pipelines.rerank_job import main
from rerank_core import InvalidRequest, RerankError


def by_place(rows):
    return sorted(rows, key=lambda row: (row["query_id"], row["doc_id"], row["rank"]))


def one_row(path, **columns):
    row = {"query_id": ["q"], "query": ["lamp"], "doc_id": ["d"], "text": ["a lamp"], **columns}
    pq.write_table(pa.table(row), path)
    return path


def test_a_result_in_the_form_of_delta_is_a_delta_table_of_the_same_rows(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out", top_k=3, format="delta")
    table = DeltaTable(str(tmp_path / "out" / "data"))
    assert table.version() == 0
    assert by_place(table.to_pyarrow_table().to_pylist()) == rows_of(tmp_path / "out")
    assert verify(tmp_path / "out")["rows_out"] == 90


def test_a_result_can_be_read_as_delta_by_the_next_job(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "one", top_k=3, format="delta")
    names = {"score": "second_score", "rank": "second_rank"}
    manifest = job(tmp_path / "one" / "data", tmp_path / "two", names=names)
    assert manifest["counts"]["rows_out"] == 90
    assert {item["snapshot"] for item in manifest["inputs"]} == {"Delta version 0"}


def test_a_job_killed_before_the_log_writes_it_next_time_and_only_then(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out", format="delta")
    log = tmp_path / "out" / "data" / "_delta_log"
    shutil.rmtree(log)
    job(pairs_input, tmp_path / "out", format="delta")
    (entry,) = log.glob("*.json")
    body = entry.read_bytes()
    job(pairs_input, tmp_path / "out", format="delta")
    assert [path.read_bytes() for path in log.glob("*.json")] == [body]


@pytest.mark.parametrize(
    "x",
    [
        pa.array([1], pa.uint64()),
        pa.array([1], pa.timestamp("ns")),
        pa.array([1], pa.timestamp("us", "Europe/Paris")),
        pa.array([uuid.UUID(int=1).bytes], pa.uuid()),
        pa.array([1.0], pa.float16()),
        pa.array([[1]], pa.list_(pa.uint8())),
        pa.nulls(1),
    ],
)
def test_a_column_that_delta_has_no_type_for_is_refused_by_the_plan(tmp_path, capfd, x):
    path = one_row(tmp_path / "in.parquet", x=x)
    given = ["--input", str(path), "--output", str(tmp_path / "out"), "--format", "delta"]
    assert main([*given, "--model", "lexical", "--dry-run"]) == 2
    error = capfd.readouterr().err
    assert "column x: Delta has no type that holds every " in error
    assert "give --columns without it, or --format parquet" in error
    job(path, tmp_path / "out", format="delta", columns=("doc_id",))
    assert DeltaTable(str(tmp_path / "out" / "data")).to_pyarrow_table().num_rows == 1


def test_a_column_that_does_not_come_out_may_have_any_type(tmp_path):
    path = one_row(tmp_path / "in.parquet", query_id=pa.array([1], pa.uint64()))
    job(path, tmp_path / "out", format="delta", columns=("doc_id",))
    assert DeltaTable(str(tmp_path / "out" / "data")).version() == 0


def test_a_log_that_cannot_be_written_is_said_in_a_line_and_the_result_is_complete(
    tmp_path, monkeypatch
):
    def full(*arguments, **options):
        raise OSError("no space left on device")

    path = one_row(tmp_path / "in.parquet")
    with monkeypatch.context() as broken:
        broken.setattr("deltalake.convert_to_deltalake", full)
        with pytest.raises(
            RerankError, match="result is complete, but not its Delta log: no space"
        ):
            job(path, tmp_path / "out", format="delta")
    job(path, tmp_path / "out", format="delta")
    assert DeltaTable(str(tmp_path / "out" / "data")).version() == 0


def test_nested_rows_are_rows_of_delta(tmp_path):
    hits = [[{"doc_id": "a", "text": "lamp"}, {"doc_id": "b", "text": "x"}]]
    table = pa.table({"query_id": ["q"], "query": ["lamp"], "candidates": hits})
    pq.write_table(table, tmp_path / "in.parquet")
    job(tmp_path / "in.parquet", tmp_path / "out", format="delta")
    (row,) = DeltaTable(str(tmp_path / "out" / "data")).to_pyarrow_table().to_pylist()
    assert [hit["rank"] for hit in row["candidates"]] == [1, 2]


def test_a_missing_extra_of_delta_is_said_before_anything_is_done(tmp_path, monkeypatch):
    path = one_row(tmp_path / "in.parquet")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'ray-rerank\[delta\]'"):
        job(path, tmp_path / "out", format="delta")


def test_json_lines_have_the_rows_of_the_output_in_its_order(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out", top_k=2, json_lines=str(tmp_path / "rows.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == pq.read_table(tmp_path / "out")[
        "doc_id"
    ].to_pylist()
    assert by_place(lines) == rows_of(tmp_path / "out")


def test_json_lines_write_every_type_as_text_that_can_be_read_back(tmp_path):
    path = one_row(
        tmp_path / "in.parquet",
        id=pa.array([uuid.UUID(int=7).bytes], pa.uuid()), at=[datetime(2026, 1, 2, tzinfo=UTC)],
        price=[Decimal("1.50")], nan=[math.nan], raw=[b"\x00\xff"], tags=[["x", None]],
        m=pa.array([[("k", b"\x01")]], pa.map_(pa.string(), pa.binary())),
    )  # fmt: skip
    job(path, tmp_path / "out", json_lines=str(tmp_path / "rows.jsonl"))
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    kept = {name: row[name] for name in ("id", "at", "price", "nan", "raw", "tags", "m")}
    assert kept == {
        "id": str(uuid.UUID(int=7)), "at": "2026-01-02T00:00:00Z", "price": "1.50", "nan": None,
        "raw": "00ff", "tags": ["x", None], "m": [["k", "01"]],
    }  # fmt: skip


def test_json_lines_of_a_finished_job_are_written_by_the_same_command(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out")
    job(pairs_input, tmp_path / "out", json_lines=str(tmp_path / "deep" / "rows.jsonl"))
    assert len((tmp_path / "deep" / "rows.jsonl").read_text().splitlines()) == 600
