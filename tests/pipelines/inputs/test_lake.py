"""Tables of a lake are read as their current snapshot or refused: deleted rows never come back."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.rerank_job import main
from rerank_core import InvalidRequest


def rows(*documents, lang="en"):
    count = len(documents)
    return pa.table(
        {
            "query_id": ["q"] * count, "query": ["lamp"] * count, "doc_id": list(documents),
            "text": [f"lamp {name}" for name in documents], "lang": [lang] * count,
            "day": pa.array([7] * count, pa.int64()),
        }
    )  # fmt: skip


@pytest.fixture
def delta(tmp_path):
    """A table of three files, from which a row was deleted after it was written."""
    path = str(tmp_path / "lake" / "table")
    write_deltalake(path, rows("a", "b"), partition_by=["lang", "day"])
    write_deltalake(path, rows("c", "12", lang="12"), mode="append")
    DeltaTable(path).delete("doc_id = 'a'")
    return Path(path)


def test_rows_that_were_deleted_from_a_delta_table_do_not_come_back(tmp_path, delta):
    assert len(list(delta.rglob("*.parquet"))) > 2
    manifest = job(delta, tmp_path / "out")
    found = [(r["doc_id"], r["lang"], r["day"]) for r in rows_of(tmp_path / "out")]
    assert found == [("12", "12", 7), ("b", "en", 7), ("c", "12", 7)]
    assert {item["snapshot"] for item in manifest["inputs"]} == {"Delta version 2"}


def refused(tmp_path, capsys, given):
    options = ["--input", str(given), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--dry-run"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("given", ["lake", "lake/table/**/*.parquet", "lake/tab*"])
def test_files_taken_out_of_a_delta_table_are_refused(tmp_path, delta, capsys, given):
    error = refused(tmp_path, capsys, tmp_path / given)
    assert "is a Delta table: read as plain files, rows that were deleted come back" in error


def test_a_delta_table_with_deletion_vectors_is_refused_with_the_way_out(tmp_path, delta, capsys):
    log = sorted((delta / "_delta_log").glob("*.json"))[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"] = {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"],
            }  # fmt: skip
    log.write_text("\n".join(map(json.dumps, lines)))
    error = refused(tmp_path, capsys, delta)
    assert "uses deletionVectors" in error
    assert "APPLY (PURGE)" in error


def test_a_missing_extra_is_said_with_the_command_that_installs_it(tmp_path, delta, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'ray-rerank\[delta\]'"):
        job(delta, tmp_path / "out")


@pytest.mark.parametrize(
    ("mark", "said"),
    [(".hoodie/hoodie.properties", "is a Hudi table"), ("metadata/v1.metadata.json", "an Iceberg")],
)
def test_tables_that_cannot_be_read_yet_are_refused(tmp_path, capsys, mark, said):
    (tmp_path / "in" / mark).parent.mkdir(parents=True)
    (tmp_path / "in" / mark).write_text("{}")
    pq.write_table(rows("a"), tmp_path / "in" / "a.parquet")
    error = refused(tmp_path, capsys, tmp_path / "in")
    assert said in error
    assert "export its current rows as Parquet or Delta" in error
