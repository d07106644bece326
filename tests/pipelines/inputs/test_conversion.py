"""Files that are no Parquet: the same rows, scores and ranks as from Parquet."""

import gzip
import json
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.rerank_job import main
from rerank_core import InvalidRequest


def json_lines(table, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def packed_json_lines(table, path):
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    path.write_bytes(gzip.compress(lines.encode()))


def csv(table, path):
    pl.DataFrame(table.to_pydict()).write_csv(path)


def tsv(table, path):
    pl.DataFrame(table.to_pydict()).write_csv(path, separator="\t")


def arrow_stream(table, path):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def feather(table, path):
    pyarrow.feather.write_feather(table, str(path))


KINDS = {
    "jsonl": json_lines, "jsonl.gz": packed_json_lines, "csv": csv, "tsv": tsv,
    "arrow": arrow_stream, "feather": feather,
}  # fmt: skip


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_of_another_kind_gives_the_rows_of_parquet(tmp_path, pairs_input, suffix):
    (tmp_path / "other").mkdir()
    for number in range(3):
        table = pq.read_table(pairs_input / f"{number}.parquet")
        KINDS[suffix](table, tmp_path / "other" / f"{number}.{suffix}")
    job(pairs_input, tmp_path / "expected")
    job(tmp_path / "other" / f"*.{suffix}", tmp_path / "out")
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "expected")


def test_ids_of_a_csv_stay_as_they_stand(tmp_path):
    (tmp_path / "in.csv").write_text(
        'query_id,query,doc_id,text,n\n007,lamp,01,"a lamp,\nand more",1\n007,lamp,1,,2\n'
    )
    counts = job(tmp_path / "in.csv", tmp_path / "out")["counts"]
    assert (counts["rows_out"], counts["rows_quarantined"]) == (1, 1)
    (row,) = rows_of(tmp_path / "out")
    assert (row["query_id"], row["doc_id"], row["n"]) == ("007", "01", 1)
    assert row["text"] == "a lamp,\nand more"


def test_a_line_that_does_not_fit_is_refused_without_its_words(tmp_path):
    lines = "query_id,query,doc_id,text,n\n" + "q,lamp,d,text,1\n" * 200_000
    (tmp_path / "in.csv").write_text(lines + "q,lamp,d,text,xyzzy-private\n")
    with pytest.raises(InvalidRequest, match=r"in\.csv: .*write it as Parquet") as refused:
        job(tmp_path / "in.csv", tmp_path / "out")
    assert "xyzzy" not in str(refused.value)


def test_a_folder_of_other_files_says_how_to_name_them(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("{}")
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--model", "lexical"]) == 2
    assert "named by a glob, as in folder/*.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["table", "table.parq", "TABLE.PARQUET"])
def test_parquet_is_read_whatever_the_files_suffix(tmp_path, pairs_input, name):
    (pairs_input / "0.parquet").rename(tmp_path / name)
    assert job(tmp_path / name, tmp_path / "out")["counts"]["rows_out"] == 200
