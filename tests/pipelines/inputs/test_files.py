"""How files are named, packed and left out: each test is named after what used to go wrong."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.inputs.listing import list_inputs
from pipelines.rerank_job import main


def pairs(*documents, **columns):
    count = len(documents)
    base = {"query_id": ["q"] * count, "query": ["lamp"] * count, "doc_id": list(documents)}
    return pa.table({**base, "text": [f"lamp {name}" for name in documents], **columns})


def write(path, *documents, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pairs(*documents, **columns), path)
    return path


def dry_run(*inputs, code=0, options=()):
    """Run the command line on inputs without making anything."""
    where = ["--input", ",".join(map(str, inputs)), "--output", "out", "--model", "lexical"]
    assert main([*where, "--dry-run", *options]) == code


@pytest.mark.parametrize("name", ["a[1]", "a?", "a*", "a[b"])
def test_a_name_with_signs_of_a_glob_that_exists_is_a_file_before_it_is_a_glob(tmp_path, name):
    write(tmp_path / "plain" / "a1.parquet", "x")
    folder = write(tmp_path / name / "0.parquet", "y").parent
    file = write(tmp_path / f"{name}.parquet", "z")
    assert [f.path for f in list_inputs((str(file),)).files] == [str(file)]
    assert [f.path for f in list_inputs((str(folder),)).files] == [str(folder / "0.parquet")]
    assert [f.path for f in list_inputs((f"{folder}/*.parquet",)).files] == [
        str(folder / "0.parquet")
    ]


def test_a_glob_is_a_glob_where_no_file_has_its_name(tmp_path, monkeypatch):
    for name in ("a1", "a2", "b1"):
        write(tmp_path / f"{name}.parquet", name)
    monkeypatch.chdir(tmp_path)
    for given in ("a[12].parquet", "a?.parquet", "./a*", f"{tmp_path}/a*"):
        assert [Path(f.path).name for f in list_inputs((given,)).files] == [
            "a1.parquet",
            "a2.parquet",
        ]


@pytest.fixture
def parts(tmp_path):
    """One file in folders that name columns."""
    return write(tmp_path / "in" / "lang=en" / "n=3" / "0.parquet", "a")


@pytest.mark.parametrize(
    "given",
    ["in", "in/lang=en", "in/lang=en/n=3", "in/*/*/*.parquet", "in/**", "in/lang=en/n=3/0.parquet"],
)
def test_a_file_has_the_same_columns_however_it_is_named(tmp_path, parts, given):
    job(tmp_path / given, tmp_path / "out")
    several = list_inputs((str(parts), str(tmp_path / given), str(tmp_path / "in"))).files
    assert several == list_inputs((str(tmp_path / "in"),)).files
    (row,) = rows_of(tmp_path / "out")
    assert (row["doc_id"], row["lang"], row["n"]) == ("a", "en", 3)


def test_numbers_with_a_null_partition_stay_numbers(tmp_path):
    write(tmp_path / "in" / "n=3" / "0.parquet", "a")
    write(tmp_path / "in" / "n=__HIVE_DEFAULT_PARTITION__" / "0.parquet", "b")
    job(tmp_path / "in", tmp_path / "out")
    assert {row["doc_id"]: row["n"] for row in rows_of(tmp_path / "out")} == {"a": 3, "b": None}


def test_what_polars_and_duckdb_wrote_in_partitions_is_read(tmp_path):
    rows = pairs("a", "b", lang=["en", "de"])
    pl.from_arrow(rows).write_parquet(tmp_path / "polars", partition_by="lang", mkdir=True)
    duckdb.sql(f"copy (from rows) to '{tmp_path / 'duckdb'}' (format parquet, partition_by (lang))")
    for name in ("polars", "duckdb"):
        job(tmp_path / name, tmp_path / f"out-{name}")
        found = {row["doc_id"]: row["lang"] for row in rows_of(tmp_path / f"out-{name}")}
        assert found == {"a": "en", "b": "de"}


def test_what_is_left_out_is_counted_in_one_line_and_in_the_manifest(tmp_path, capfd):
    folder = write(tmp_path / "in" / "0.parquet", "a", x=[1], y=[2]).parent
    for name in ("_SUCCESS", ".0.parquet.crc", "note.txt", "_temporary/1.parquet", "run.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    dry_run(folder, options=["--columns", "doc_id,x"])
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith("left out: ")
    for words in ("3 files hidden", "2 files of another kind, which a glob would name (",
                  "1 column (y)"):  # fmt: skip
        assert words in line
    manifest = job(folder, tmp_path / "out", columns=("doc_id", "x"))
    assert manifest["left_out"] == {
        "files": [
            {"reason": reason, "count": count, "first": item["first"]}
            for item, reason, count in zip(
                manifest["left_out"]["files"],
                ("hidden, as names that start with _ or . are",
                 "of another kind, which a glob would name"),
                (3, 2), strict=True,
            )
        ],
        "columns": ["y"],
    }  # fmt: skip


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, capfd):
    write(tmp_path / "in" / "0.parquet", "a")
    dry_run(tmp_path / "in")
    assert "left out" not in capfd.readouterr().out
    assert job(tmp_path / "in", tmp_path / "out")["left_out"] == {"files": [], "columns": []}


@pytest.mark.parametrize("name", ["0.parq", "0.PARQUET", "0.pq", "0.Parquet"])
def test_a_folder_of_parquet_of_other_suffixes_is_read(tmp_path, name):
    folder = write(tmp_path / "in" / name, "a").parent
    assert job(folder, tmp_path / "out")["counts"]["rows_out"] == 1


def test_parquet_without_a_suffix_is_read_by_a_glob_and_counted_in_a_folder(tmp_path, capsys):
    write(tmp_path / "in" / "000000_0", "a")
    dry_run(tmp_path / "in" / "*")
    assert "rows: 1" in capsys.readouterr().out
    dry_run(tmp_path / "in", code=2)
    assert "no Parquet file there; files of other kinds are named by" in capsys.readouterr().err
    write(tmp_path / "in" / "1.parquet", "b")
    dry_run(tmp_path / "in")
    assert "left out: 1 file of another kind" in capsys.readouterr().out


def test_empty_files_and_row_groups_are_no_rows(tmp_path):
    rows = pairs("a", "b")
    (tmp_path / "in").mkdir()
    pq.write_table(rows.slice(0, 0), tmp_path / "in" / "0.parquet")
    with pq.ParquetWriter(tmp_path / "in" / "1.parquet", rows.schema) as writer:
        for part in (rows.slice(0, 0), rows.slice(0, 1), rows.slice(0, 0), rows.slice(1)):
            writer.write_table(part)
    pl.from_arrow(rows.slice(0, 0)).write_parquet(tmp_path / "in" / "2.parquet")
    duckdb.sql(f"copy (from rows where false) to '{tmp_path / 'in' / '3.parquet'}'")
    assert pq.read_metadata(tmp_path / "in" / "1.parquet").num_row_groups == 4
    job(tmp_path / "in", tmp_path / "out", unit_pairs=1)
    assert [row["doc_id"] for row in rows_of(tmp_path / "out")] == ["a", "b"]


def test_an_input_without_a_row_is_a_result_without_a_row(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pairs("a").slice(0, 0), tmp_path / "in" / "0.parquet")
    assert job(tmp_path / "in", tmp_path / "out")["counts"]["rows_out"] == 0


def test_a_file_of_no_bytes_is_named(tmp_path, capsys):
    write(tmp_path / "in" / "0.parquet", "a")
    (tmp_path / "in" / "1.parquet").write_bytes(b"")
    dry_run(tmp_path / "in")
    assert "1.parquet: unreadable: Parquet file size is 0 bytes" in capsys.readouterr().out


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_every_codec_is_read(tmp_path, codec):
    pq.write_table(pairs("a", "b"), tmp_path / "0.parquet", compression=codec)
    assert job(tmp_path / "0.parquet", tmp_path / "out")["counts"]["rows_out"] == 2


def test_every_encoding_is_read(tmp_path):
    rows = pairs("a", "ab", n=[1, 2], x=[0.5, 1.5], b=[True, False])
    encodings = {
        "doc_id": "DELTA_BYTE_ARRAY", "text": "DELTA_LENGTH_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED",
        "x": "BYTE_STREAM_SPLIT", "b": "RLE", "query": "PLAIN",
    }  # fmt: skip
    (tmp_path / "in").mkdir()
    for version in ("1.0", "2.0"):
        pq.write_table(
            rows, tmp_path / "in" / f"{version}.parquet", data_page_version=version,
            use_dictionary=["query_id"], column_encoding=encodings,
        )  # fmt: skip
    pl.from_arrow(rows).write_parquet(tmp_path / "in" / "polars.parquet")
    duckdb.sql(f"copy (from rows) to '{tmp_path / 'in' / 'duck.parquet'}' (parquet_version v2)")
    job(tmp_path / "in", tmp_path / "out")
    kept = [{name: row[name] for name in rows.column_names} for row in rows_of(tmp_path / "out")]
    assert kept == [row for row in rows.to_pylist() for _ in range(4)]


class Kms(pe.KmsClient):
    """Keys that anyone may have."""

    def __init__(self, connection):
        super().__init__()

    def wrap_key(self, key, name):
        return base64.b64encode(key)

    def unwrap_key(self, key, name):
        return base64.b64decode(key)


def write_encrypted(table, path, columns, plaintext_footer):
    setup = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": columns}, plaintext_footer=plaintext_footer
    )
    keys = pe.CryptoFactory(Kms).file_encryption_properties(pe.KmsConnectionConfig(), setup)
    with pq.ParquetWriter(path, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_bad_and_says_that_it_is_encrypted(tmp_path, capsys, plaintext_footer):
    write(tmp_path / "in" / "0.parquet", "a")
    path = tmp_path / "in" / "1.parquet"
    write_encrypted(pairs("b"), path, ["text"], plaintext_footer)
    dry_run(tmp_path / "in")
    assert f"{path}: encrypted: give a copy that is not" in capsys.readouterr().out


def test_encrypted_candidates_under_a_plain_footer_do_not_end_the_process(tmp_path, capsys):
    hits = [[{"doc_id": "a", "text": "a lamp"}]]
    table = pa.table({"query_id": ["q"], "query": ["lamp"], "candidates": hits})
    inside = [f"candidates.list.element.{name}" for name in ("doc_id", "text")]
    write_encrypted(table, tmp_path / "0.parquet", inside, True)
    dry_run(tmp_path / "0.parquet", code=2)
    assert "0.parquet: encrypted: give a copy that is not" in capsys.readouterr().err


def test_what_duckdb_encrypted_says_that_it_is_encrypted(tmp_path, capsys):
    table = pairs("a")
    with duckdb.connect() as session:
        session.register("rows_in", table)
        session.sql("set force_mbedtls_unsafe = 'true'")
        session.sql("pragma add_parquet_key('k', '0123456789112345')")
        session.sql(
            f"copy (from rows_in) to '{tmp_path}/0.parquet' (encryption_config {{footer_key: 'k'}})"
        )
    dry_run(tmp_path / "0.parquet", code=2)
    assert "0.parquet: encrypted: give a copy that is not" in capsys.readouterr().err
