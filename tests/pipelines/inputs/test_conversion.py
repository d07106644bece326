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
from protocol import InProcess, job, rows_of

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


def test_a_column_of_a_csv_with_a_007_in_any_file_stays_text(tmp_path):
    head = "query_id,query,doc_id,text,zip,tweet,n\n"
    (tmp_path / "a.csv").write_text(head + "q,lamp,a,x,02139,1,1\n")
    (tmp_path / "b.csv").write_text(head + "q,lamp,b,x,99501,12345678901234567890,-2\n")
    job(tmp_path / "*.csv", tmp_path / "out")
    found = [(r["zip"], r["tweet"], r["n"]) for r in rows_of(tmp_path / "out")]
    assert found == [("02139", "1", 1), ("99501", "12345678901234567890", -2)]


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


def test_an_empty_shard_of_another_kind_is_counted_and_the_others_are_read(tmp_path, pairs_input):
    folder = tmp_path / "other"
    folder.mkdir()
    table = pq.read_table(pairs_input / "0.parquet")
    json_lines(table, folder / "0.jsonl")
    (folder / "1.jsonl").write_text("")
    csv(table, folder / "2.csv")
    (folder / "3.csv").write_text("")
    manifest = job(folder / "*", tmp_path / "out")
    assert manifest["counts"]["rows_out"] == 400
    (item,) = manifest["left_out"]["files"]
    assert (item["reason"], item["count"]) == ("without a row", 2)
    assert {i["path"] for i in manifest["inputs"]} == {f"{folder}/0.jsonl", f"{folder}/2.csv"}


def test_shards_of_other_kinds_that_differ_are_refused_by_their_own_names(tmp_path, capsys):
    row = "query_id,query,doc_id,text,n\nq,lamp,d,text,{}\n"
    (tmp_path / "a.csv").write_text(row.format(1))
    (tmp_path / "b.csv").write_text(row.format("x"))
    options = ["--input", f"{tmp_path}/*.csv", "--output", "out", "--dry-run", "--model", "lexical"]
    assert main(options) == 2
    said = f"file {tmp_path}/a.csv has n: int64, file {tmp_path}/b.csv has n: string"
    assert said in capsys.readouterr().err


def test_a_row_set_aside_names_the_file_that_people_know(tmp_path):
    (tmp_path / "in.csv").write_text("query_id,query,doc_id,text\nq,lamp,d,\n")
    job(tmp_path / "in.csv", tmp_path / "out")
    (aside,) = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert aside["file"] == str(tmp_path / "in.csv")


def test_a_file_that_changed_while_a_plan_was_made_is_converted_anew(tmp_path):
    class Dead(InProcess):
        def score_units(self, *given):
            raise ConnectionError

    (tmp_path / "in.csv").write_text("query_id,query,doc_id,text\nq,lamp,d,old\n")
    with pytest.raises(ConnectionError):
        job(tmp_path / "in.csv", tmp_path / "out", engine=Dead())
    (old,) = (tmp_path / "out" / "_job" / "input").glob("0-*.parquet")
    (tmp_path / "in.csv").write_text("query_id,query,doc_id,text\nq,lamp,d,newer\n")
    (tmp_path / "next" / "_job").mkdir(parents=True)
    (old.parent).rename(tmp_path / "next" / "_job" / "input")  # killed before the plan was fixed
    (tmp_path / "next" / "_job" / "epochs").mkdir()
    (tmp_path / "next" / "_job" / "epochs" / "1.json").write_text("{}")
    job(tmp_path / "in.csv", tmp_path / "next")
    assert [row["text"] for row in rows_of(tmp_path / "next")] == ["newer"]


HEAD = b"query_id,query,doc_id,text\n"
BROKEN = {
    "a.jsonl": b'{"query_id": "q", "secret-',
    "list.json": b'[{"query_id": "q"}]',
    "a.jsonl.gz": gzip.compress(b'{"query_id": "q"}\n' * 9)[:-9],
    "plain.jsonl.gz": b'{"query_id": "q"}\n',
    "short.csv": HEAD + b"q,lamp,secret\n",
    "latin.csv": HEAD + "q,lamp,d,secretä\n".encode("latin-1"),
    "a.arrow": b"ARROW1\0\0secret",
    "a.feather": b"",
    "a.tsv.zst": b"secret",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_any_kind_is_said_in_a_line_without_its_words(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    options = ["--input", str(tmp_path / name), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--model", "lexical"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / name) in error
    assert len(error.strip().splitlines()) == 1
    assert "secret" not in error


def test_a_row_that_is_too_short_is_said_by_its_counts(tmp_path):
    (tmp_path / "in.csv").write_bytes(BROKEN["short.csv"])
    with pytest.raises(InvalidRequest, match="Expected 4 columns, got 3; write it as Parquet"):
        job(tmp_path / "in.csv", tmp_path / "out")


def test_candidates_in_json_lines_are_nested_rows(tmp_path):
    hits = [{"doc_id": "a", "text": "music"}, {"doc_id": "b", "text": "a lamp"}]
    row = {"query_id": 1, "query": "lamp", "candidates": hits}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    job(tmp_path / "in.jsonl", tmp_path / "out")
    (out,) = pq.read_table(tmp_path / "out").to_pylist()
    assert [hit["doc_id"] for hit in out["candidates"]] == ["b", "a"]
