"""The tables that people really have: each test is named after what used to go wrong."""

from __future__ import annotations

import decimal
import sys
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol import job, rows_of

from pipelines.commits.verify import verify
from pipelines.rerank_job import main
from rerank_core import InvalidRequest

BASE = {"query_id": ["q", "q"], "query": ["lamp", "lamp"], "text": ["a lamp", "music"]}


def shards(folder, *tables):
    """Write the tables as files of one input, and return its folder."""
    folder.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        columns = {**BASE, "doc_id": [f"d{number}0", f"d{number}1"], **table}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return folder


def result(tmp_path, *tables, **options):
    job(shards(tmp_path / "in", *tables), tmp_path / "out", **options)
    assert verify(tmp_path / "out")["rows_out"] == 2 * len(tables)
    return pq.read_table(tmp_path / "out")


@pytest.mark.parametrize(
    ("one", "two", "together"),
    [
        (pa.array([1, 2], pa.int32()), pa.array([3, 4], pa.int64()), pa.int64()),
        (pa.array([1, 2], pa.uint8()), pa.array([-3, 4], pa.int8()), pa.int16()),
        (pa.array(["a", "b"]), pa.array(["c", None], pa.large_string()), pa.large_string()),
        (pa.array(["a", "b"]), pa.array(["c", "d"]).dictionary_encode(), pa.string()),
        (pa.array(["a", "b"]), pa.array(["c", "d"], pa.string_view()), pa.string()),
        (pa.array(["a", "b"]), pa.nulls(2), pa.string()),
        (pa.nulls(2), pa.array([{"x": 1}, None]), pa.struct([("x", pa.int64())])),
        (pa.array([[], None], pa.list_(pa.null())), pa.array([["a"], []]), pa.list_(pa.string())),
        (pa.array([1, 2], pa.timestamp("ms")), pa.array([3, 4], pa.timestamp("us")),
         pa.timestamp("us")),
        (pa.array([1, 2], pa.float32()), pa.array([3, 4], pa.float64()), pa.float64()),
        (pa.array([1, 2], pa.time32("s")), pa.array([3, 4], pa.time64("us")), pa.time64("us")),
        (pa.array([1, 2], pa.duration("s")), pa.array([3, 4], pa.duration("ms")),
         pa.duration("ms")),
        (pa.array([decimal.Decimal("12345.6")] * 2), pa.array([decimal.Decimal("0.123")] * 2),
         pa.decimal128(8, 3)),
        (pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2)), pa.array([[3.0], None]),
         pa.list_(pa.float64())),
        (pa.array([[("k", 1)]] * 2, pa.map_(pa.string(), pa.int32())),
         pa.array([[("k", 2)]] * 2, pa.map_(pa.large_string(), pa.int64())),
         pa.map_(pa.large_string(), pa.int64())),
        (pa.array([{"a": 1, "b": "x"}] * 2), pa.array([{"b": "y", "a": 2}] * 2),
         pa.struct([("a", pa.int64()), ("b", pa.string())])),
    ],
)  # fmt: skip
def test_shards_that_differ_a_little_are_one_table(tmp_path, one, two, together):
    table = result(tmp_path, {"x": one}, {"x": two})
    assert table.schema.field("x").type == together
    assert table["x"].to_pylist() == [*one.to_pylist(), *two.to_pylist()]


def test_shards_whose_columns_stand_in_another_order_are_one_table(tmp_path):
    shards(tmp_path / "in", {"x": [1, 2]})
    table = pq.read_table(tmp_path / "in" / "0.parquet")
    mixed = table.select(table.column_names[::-1])
    pq.write_table(mixed.set_column(1, "doc_id", pa.array(["e", "f"])), tmp_path / "in/1.parquet")
    job(tmp_path / "in", tmp_path / "out")
    out = pq.read_table(tmp_path / "out")
    assert out.column_names[: len(table.column_names)] == table.column_names
    assert out["x"].to_pylist() == [1, 2, 1, 2]


def test_a_column_that_one_shard_may_not_have_null_is_one_that_may(tmp_path):
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    shards(tmp_path / "in", {"x": [1, None]}, {})
    table = pq.read_table(tmp_path / "in" / "1.parquet")
    table = table.append_column(schema.field("x"), pa.array([3, 4]))
    pq.write_table(table, tmp_path / "in" / "1.parquet")
    job(tmp_path / "in", tmp_path / "out")
    assert pq.read_table(tmp_path / "out")["x"].to_pylist() == [1, None, 3, 4]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ([1, 2], ["a", "b"], "0.parquet has x: int64, file {}/1.parquet has x: string"),
        ([1, 2], [0.5, 1.5], "has x: int64, file {}/1.parquet has x: double"),
        (pa.array([1, 2], pa.uint64()), [-1, 2], "has x: uint64, file {}/1.parquet has x: int64"),
        (pa.array([1, 2], pa.timestamp("us", "UTC")), pa.array([1, 2], pa.timestamp("us")),
         r"has x: timestamp[us, tz=UTC], file {}/1.parquet has x: timestamp[us]"),
        ([1, 2], None, "0.parquet has a column x, file {}/1.parquet has none"),
    ],
)  # fmt: skip
def test_shards_that_differ_in_earnest_are_refused_by_file_column_and_types_with_a_way_out(
    tmp_path, capfd, one, two, said
):
    folder = shards(tmp_path / "in", {"x": one}, {} if two is None else {"x": two})
    options = ["--input", str(folder), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--dry-run"]) == 2
    error = capfd.readouterr().err
    assert said.format(folder) in error
    assert "give --columns without it" in error
    job(folder, tmp_path / "out", columns=("query_id", "doc_id"))  # the way out works
    assert verify(tmp_path / "out")["rows_out"] == 4


def test_a_time_that_the_finer_unit_cannot_hold_is_refused_with_its_column_by_the_plan(
    tmp_path, capfd
):
    """As 9999-12-31, which many tables have for "for ever"."""
    far = pa.array([2**57, 2], pa.timestamp("us"))
    folder = shards(tmp_path / "in", {"x": far}, {"x": pa.array([1, 2], pa.timestamp("ns"))})
    options = ["--input", str(folder), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--dry-run"]) == 2
    error = capfd.readouterr().err
    assert f"file {folder}/0.parquet: column x has a value that timestamp[ns]" in error
    assert "give --columns without it" in error
    job(folder, tmp_path / "out", columns=("doc_id",))


def test_a_time_out_of_range_in_a_file_without_statistics_is_refused_when_it_is_read(tmp_path):
    far = {"x": pa.array([2**57, 2], pa.timestamp("us"))}
    folder = shards(tmp_path / "in", far, {"x": pa.array([1, 2], pa.timestamp("ns"))})
    table = pq.read_table(folder / "0.parquet")
    pq.write_table(table, folder / "0.parquet", write_statistics=False)
    with pytest.raises(InvalidRequest, match=r"column x has a value that timestamp\[ns\]"):
        job(folder, tmp_path / "out")


def test_the_end_of_time_that_spark_writes_is_not_a_day_of_1816(tmp_path):
    table = pa.table({**BASE, "doc_id": ["a", "b"], "x": [datetime(9999, 12, 31), None]})
    pq.write_table(
        table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True, store_schema=False
    )
    job(tmp_path / "in.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out")["x"].to_pylist() == [datetime(9999, 12, 31), None]


def test_a_column_that_no_job_can_leave_out_has_another_way_out(tmp_path, capsys):
    folder = shards(tmp_path / "in", {"query_id": [1, 2]}, {})
    options = ["--input", str(folder), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert f"file {folder}/0.parquet has query_id: int64" in error
    assert "a job needs it of all files: write them alike" in error


def test_layouts_inside_of_lists_and_structs_are_only_layouts(tmp_path):
    (tmp_path / "in").mkdir()
    view, plain = pa.string_view(), pa.large_string()
    for number, text in enumerate((view, plain, pa.string())):
        kind = pa.struct([("doc_id", text), ("text", text), ("tags", pa.list_(text))])
        hits = [{"doc_id": f"d{number}", "text": "a lamp", "tags": ["x"]}]
        wrap = pa.list_view(kind) if text == view else pa.large_list(kind)
        table = {"query_id": [f"q{number}"], "query": ["lamp"]}
        table["candidates"] = pa.array([hits], wrap if number < 2 else pa.list_(kind))
        table["m"] = pa.array([[("k", "v")]], pa.map_(text, text))
        pq.write_table(pa.table(table), tmp_path / "in" / f"{number}.parquet")
    job(tmp_path / "in", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [(r["query_id"], r["candidates"][0]["tags"], r["m"]) for r in rows] == [
        (f"q{n}", ["x"], [("k", "v")]) for n in range(3)
    ]  # fmt: skip


def test_a_field_that_is_there_twice_in_candidates_is_refused(tmp_path, capsys):
    parts = [pa.array(["d"]), pa.array(["a"]), pa.array(["b"])]
    struct = pa.StructArray.from_arrays(parts, names=["doc_id", "text", "text"])
    lists = pa.ListArray.from_arrays([0, 1], struct)
    table = pa.table({"query_id": ["q"], "query": ["lamp"], "candidates": lists})
    pq.write_table(table, tmp_path / "in.parquet")
    options = ["--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out")]
    assert main([*options, "--dry-run", "--model", "lexical"]) == 2
    assert "candidates has the field text twice: rename one" in capsys.readouterr().err


def test_a_column_with_a_dot_is_not_the_field_of_a_struct(tmp_path):
    table = result(tmp_path, {"a": [{"b": 1}, None], "a.b": [5, 6]}, columns=("a.b",))
    assert table["a.b"].to_pylist() == [5, 6]
    assert "a" not in table.column_names


def test_columns_of_other_scripts_are_ranked_by_where_they_are_named(tmp_path):
    table = pa.table(
        {
            "frage nr.": ["q", "q"],
            "查询": ["lamp"] * 2,
            "id": ["a", "b"],
            "Ünïcode": ["a lamp", "x"],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    names = {"query_id": "frage nr.", "query": "查询", "doc_id": "id", "text": "Ünïcode"}
    job(tmp_path / "in.parquet", tmp_path / "out", names=names)
    assert pq.read_table(tmp_path / "out").column_names == [*table.column_names, "score", "rank"]


def test_a_column_that_is_there_twice_is_refused(tmp_path, capsys):
    names = ["query_id", "query", "doc_id", "text", "x", "x"]
    columns = [BASE["query_id"], BASE["query"], ["a", "b"], BASE["text"], [1, 2], [3, 4]]
    pq.write_table(pa.table([pa.array(c) for c in columns], names), tmp_path / "in.parquet")
    options = ["--input", str(tmp_path / "in.parquet"), "--output", str(tmp_path / "out")]
    assert main([*options, "--dry-run", "--model", "lexical"]) == 2
    assert "has the column x twice" in capsys.readouterr().err
    assert main([*options, "--dry-run", "--model", "lexical", "--columns", "doc_id"]) == 0


def test_names_that_differ_in_case_and_odd_names_pass_through(tmp_path):
    odd = {"Text": [1, 2], "a.b": [3, 4], "naïve 列": [5, 6], "": [7, 8]}
    table = result(tmp_path, odd)
    assert {name: table[name].to_pylist() for name in odd} == odd


def test_what_polars_and_duckdb_write_is_read_together(tmp_path):
    (tmp_path / "in").mkdir()
    frame = pl.DataFrame({**BASE, "doc_id": ["a", "b"], "n": [1, 2], "tags": [["x"], []]})
    frame.write_parquet(tmp_path / "in" / "0.parquet")
    frame.with_columns(pl.Series("doc_id", ["c", "d"])).write_parquet(
        tmp_path / "in" / "1.parquet", use_pyarrow=True
    )
    duckdb.sql(
        "copy (select 'q' query_id, 'lamp' query, 'e' doc_id, 'lamp' as text, 3::int n, ['y'] tags)"
        f" to '{tmp_path / 'in' / '2.parquet'}'"
    )
    job(tmp_path / "in", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["doc_id"], row["n"], row["tags"]) for row in rows] == [
        ("a", 1, ["x"]), ("b", 2, []), ("c", 1, ["x"]), ("d", 2, []), ("e", 3, ["y"])
    ]  # fmt: skip
    assert sorted(row["rank"] for row in rows) == [1, 2, 3, 4, 5]


class Tag(pa.ExtensionType):
    """A type of somebody's own, as pandas and GeoArrow make them."""

    def __init__(self):
        super().__init__(pa.string(), "tests.tag")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, body):
        return cls()


@pytest.fixture(autouse=True, scope="module")
def known_tag():
    pa.register_extension_type(Tag())
    yield
    pa.unregister_extension_type("tests.tag")


def test_row_numbers_that_only_some_shards_of_pandas_have_are_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    frame = pd.DataFrame({**BASE, "doc_id": ["a", "b"], "n": pd.array([1, None], dtype="Int64")})
    frame.to_parquet(tmp_path / "in" / "0.parquet")
    frame.assign(doc_id=["c", "d"]).to_parquet(tmp_path / "in" / "1.parquet", index=True)
    assert "__index_level_0__" in pq.read_schema(tmp_path / "in" / "1.parquet").names
    manifest = job(tmp_path / "in", tmp_path / "out")
    assert manifest["left_out"]["columns"] == ["__index_level_0__"]
    out = pd.read_parquet(tmp_path / "out" / "data")
    assert out["doc_id"].tolist() == ["a", "b", "c", "d"]
    assert out["n"].isna().tolist() == [False, True, False, True]


UUIDS = [uuid.UUID(int=7), uuid.UUID(int=7)]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (pa.array([u.bytes for u in UUIDS], pa.uuid()), str(UUIDS[0])),
        (pa.array([u.bytes for u in UUIDS], pa.binary(16)), str(UUIDS[0])),
        (pa.array([b"\x00\xff"] * 2, pa.binary()), b"\x00\xff".hex()),
        (pa.array([decimal.Decimal("1.50")] * 2, pa.decimal128(9, 2)), "1.50"),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
         "2026-01-02T00:00:00+00:00"),
        (pa.array([True, True]), "true"),
        (pa.array(["x", "x"]).dictionary_encode(), "x"),
        (pa.array(["x", "x"], pa.large_string()), "x"),
        (pa.array([7, 7], pa.uint64()), "7"),
        (pa.array([date(2026, 1, 2)] * 2), "2026-01-02"),
        (pa.array([1.5, 1.5]), "1.5"),
        (pa.ExtensionArray.from_storage(Tag(), pa.array(["x", "x"])), "x"),
    ],
)  # fmt: skip
def test_ids_of_any_type_rank_over_files_and_are_text_where_text_is_wanted(tmp_path, ids, text):
    tables = [{"query_id": ids}, {"query_id": ids, "text": ["lamp", None]}]
    job(shards(tmp_path / "in", *tables), tmp_path / "out", unit_pairs=1,
        trec_run=str(tmp_path / "run"))  # fmt: skip
    out = pq.read_table(tmp_path / "out")
    assert out.schema.field("query_id").type == ids.type
    assert sorted(out["rank"].to_pylist()) == [1, 2, 3]
    verify(tmp_path / "out")
    (aside,) = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert aside["query_id"] == text
    assert {line.split()[0] for line in (tmp_path / "run").read_text().splitlines()} == {text}


def test_ids_of_candidates_of_any_type_are_text_where_text_is_wanted(tmp_path):
    ids = pa.array([UUIDS[0].bytes], pa.uuid())
    hits = pa.StructArray.from_arrays([ids, pa.array(["a lamp"])], names=["doc_id", "text"])
    table = {"query_id": ids, "query": ["lamp"]}
    table["candidates"] = pa.ListArray.from_arrays([0, 1], hits)
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    job(tmp_path / "in.parquet", tmp_path / "out", trec_run=str(tmp_path / "run"))
    out = pq.read_table(tmp_path / "out")
    assert out.schema.field("candidates").type.value_type.field("doc_id").type == pa.uuid()
    assert (tmp_path / "run").read_text().split()[:3] == [str(UUIDS[0]), "Q0", str(UUIDS[0])]


def test_a_partition_named_007_stays_text(tmp_path):
    for part in ("007", "12"):
        (tmp_path / "in").mkdir(exist_ok=True)
        shards(tmp_path / "in" / f"agent={part}", {"doc_id": [part, part + "b"]})
    job(tmp_path / "in", tmp_path / "out")
    assert {row["agent"] for row in rows_of(tmp_path / "out")} == {"007", "12"}


def test_a_column_in_the_path_and_in_the_file_is_a_conflict(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    shards(tmp_path / "in" / "x=1", {"x": [2, 3]})
    options = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--dry-run"]
    assert main([*options, "--model", "lexical"]) == 2
    assert "has a column x, and a folder above it says x=1" in capsys.readouterr().err


def test_a_column_in_the_path_and_in_the_file_that_say_the_same_is_no_conflict(tmp_path):
    (tmp_path / "in").mkdir()
    shards(tmp_path / "in" / "x=7", {"x": [7, 7]})
    job(tmp_path / "in", tmp_path / "out")
    assert [row["x"] for row in rows_of(tmp_path / "out")] == [7, 7]
