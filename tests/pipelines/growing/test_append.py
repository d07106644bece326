"""Files that come after a job has finished: added to its output, nothing scored again."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

sys.path.insert(0, str(Path(__file__).parents[1]))
from places import thirds
from protocol import Counting, Stop, StopAfter, job, rows_of

import pipelines
from pipelines.commits.records import JobFolder
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.config import RerankJobConfig
from pipelines.identity import JobChanged
from pipelines.inputs.reading import FileChanged
from pipelines.refusals import DuplicateIds, TooManyBadFiles
from pipelines.rerank_job import main
from rerank_core import InvalidRequest, ScorerConfig, load_scorer

SMALL = {"unit_pairs": 10}


@pytest.fixture
def rows(make_rows):
    """100 pairs of 5 queries, mixed, one without a text."""
    rows = make_rows(5, 20)
    rows[17]["text"] = None
    return rows


@pytest.fixture
def grow(tmp_path):
    """Write so many files more of these rows; return their folder."""
    folder = tmp_path / "in"
    folder.mkdir()

    def grow(rows, files=1):
        step, there = -(-len(rows) // files), len(list(folder.iterdir()))
        for number in range(files):
            table = pa.Table.from_pylist(rows[number * step : (number + 1) * step])
            pq.write_table(table, folder / f"{there + number:02}.parquet", row_group_size=15)
        return folder

    return grow


def appended(folder, out, load=load_scorer, **changes):
    return job(folder, out, load, append=True, **SMALL | changes)


def moves_of(out):
    """What the report counts of ranks against the input's order."""
    records = JobFolder(open_store(out), 0).all_records()
    found = [
        r for stage in (records.newest(), records.ranks) for r in stage.values() if "moves" in r
    ]
    return [np.sum([r[name] for r in found], axis=0).tolist() for name in ("moves", "rank_scores")]


def delta_rows(out):
    table = DeltaTable(open_store(out).address("data"), storage_options={"allow_http": "true"})
    return table.to_pyarrow_table().to_pylist()


def in_order(out):
    return pipelines.read_output(out).to_table().to_pylist()


@pytest.mark.seconds
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 7},
        {"top_k": 7, "duplicates": "set_aside"},
        {"duplicates": "set_aside", "columns": ("place",)},
        {"unit_pairs": 1000, "top_k": 3},
        {"unit_pairs": 1000, "top_k": 3, "duplicates": "set_aside"},
        {"file_size": 3_000, "top_k": 7},
        {"file_size": 3_000, "columns": ("query_id", "doc_id")},
    ],
)
def test_a_job_that_grew_twice_is_the_job_of_all_files(tmp_path, rows, grow, changes):
    rows[70] |= {name: rows[3][name] for name in ("query_id", "query", "doc_id")}
    out = tmp_path / "out"
    job(grow(rows[:50], files=3), out, **SMALL | changes)
    for first, stop in ((50, 60), (60, 100)):
        folder, whole = grow(rows[first:stop], files=2), tmp_path / f"whole{stop}"
        manifest = appended(folder, out, **changes)
        job(folder, whole, **SMALL | changes)
        assert in_order(out) == in_order(whole)
        assert verify(out) == verify(whole)
        assert moves_of(out) == moves_of(whole)
        assert manifest["appended"] | {"to": "", "units": 0} == {
            "to": "", "units": 0, "files": 2, "rows": stop - first
        }  # fmt: skip


def test_nested_rows_are_added_as_they_are(tmp_path, grow):
    def nested(queries):
        candidates = [{"doc_id": f"d{n}", "text": f"lamp {'red ' * n}"} for n in range(4)]
        return [{"query_id": q, "query": "red lamp", "candidates": candidates} for q in queries]

    out, whole = tmp_path / "out", tmp_path / "whole"
    job(grow(nested("abc")), out, top_k=2)
    folder = grow(nested("ad"))
    job(folder, out, top_k=2, append=True)
    job(folder, whole, top_k=2)
    assert in_order(out) == in_order(whole)
    assert verify(out) == verify(whole)
    assert moves_of(out) == moves_of(whole)


def test_only_new_pairs_are_scored(tmp_path, rows, grow):
    out, counting = tmp_path / "out", Counting()
    job(grow(rows[:60], files=2), out, **SMALL)
    folder = grow(rows[60:])
    appended(folder, out, counting)
    assert counting.pairs == 40
    appended(folder, out, counting)
    assert counting.pairs == 40


def test_only_files_whose_ranks_change_are_written_again(tmp_path, rows, grow):
    out = tmp_path / "out"
    rows.sort(key=lambda row: row["query_id"])
    # More than a unit's file, less than two units'.
    job(grow(rows[:80], files=4), out, file_size=4_000, **SMALL)
    before = {file.name for file in (out / "data").iterdir()}
    appended(grow([{**rows[0], "doc_id": "new"}]), out, file_size=4_000)
    kept = before & {file.name for file in (out / "data").iterdir()}
    assert 0 < len(kept) < len(before)


def test_a_document_that_came_before_is_the_one_that_stays(tmp_path, rows, grow):
    out = tmp_path / "out"
    job(grow(rows[:20]), out, top_k=1, duplicates="set_aside", **SMALL)
    folder = grow(rows[:21])
    # 20 copies, and in each file the row without a text.
    counts = appended(folder, out, top_k=1, duplicates="set_aside")["counts"]
    assert counts["rows_quarantined"] == 21
    assert verify(out)["rows_quarantined"] == 21


@pytest.mark.parametrize("unit_pairs", [10, 1000])
def test_a_document_that_the_output_has_is_refused_before_a_model_is_loaded(
    tmp_path, rows, grow, unit_pairs
):
    def no_model(config):
        raise AssertionError("a model was loaded")

    out, options = tmp_path / "out", {"top_k": 1, "duplicates": "refuse", "unit_pairs": unit_pairs}
    job(grow(rows[:50]), out, **options)
    folder = grow(rows[50:])
    assert appended(folder, out, **options)["counts"]["rows_in"] == 100
    grow(rows[:3])
    with pytest.raises(DuplicateIds, match="3 documents come twice for their query"):
        appended(folder, out, no_model, **options)
    assert verify(out)["rows_in"] == 100


def test_copies_are_looked_for_in_new_files_alone(tmp_path, rows, grow):
    out, options = tmp_path / "out", {"duplicates": "refuse", "max_bad_files": 1}
    folder = grow(rows[:60], files=2)
    (folder / "00.parquet").write_bytes(b"no Parquet")
    job(folder, out, **SMALL, **options)
    grow(rows[60:])
    assert appended(folder, out, **options)["counts"]["rows_in"] == 70


def test_the_same_command_may_begin_and_add_nothing(tmp_path, rows, grow):
    out = tmp_path / "out"
    made = appended(grow(rows), out)
    assert (made["appended"], made["counts"]["rows_in"]) == (None, 100)
    assert appended(tmp_path / "in", out) == made


def test_changed_and_vanished_files_are_named_and_nothing_is_touched(tmp_path, rows, grow):
    out, folder = tmp_path / "out", grow(rows[:60], files=3)
    job(folder, out, **SMALL)
    made, changing = (out / "_manifest.json").read_bytes(), folder / "01.parquet"
    old = changing.read_bytes()
    grow(rows[60:])
    pq.write_table(pq.read_table(changing).slice(1), changing)
    with pytest.raises(FileChanged, match=r"1 file \(\S+/01.parquet\) changed since the output"):
        appended(folder, out)
    # Of the same size: its footer says it.
    changing.write_bytes(old[:-40] + bytes([old[-40] ^ 1]) + old[-39:])
    with pytest.raises(FileChanged, match=r"01.parquet\) changed since the output was finished"):
        appended(folder, out)
    changing.unlink()
    said = r"1 file \(\S+/01.parquet\) of the finished output is not in the input any more: --app"
    with pytest.raises(FileChanged, match=said):
        appended(folder, out)
    assert (out / "_manifest.json").read_bytes() == made
    changing.write_bytes(old)
    assert appended(folder, out)["counts"]["rows_in"] == 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"top_k": 3}, "--append adds files to the same job, and top_k changed since"),
        ({"scorer": ScorerConfig(model="lexical", max_length=9)}, "and scorer changed since"),
        ({"unit_pairs": 11}, "and unit_pairs changed since"),
    ],
)
def test_another_job_cannot_be_appended(tmp_path, rows, grow, changes, said):
    job(grow(rows[:50]), tmp_path / "out", **SMALL)
    with pytest.raises(JobChanged, match=said):
        appended(grow(rows[50:]), tmp_path / "out", **changes)


@pytest.mark.parametrize("unit_pairs", [10, 1000])
def test_an_output_without_scores_cannot_grow(tmp_path, rows, grow, unit_pairs):
    out = tmp_path / "out"
    made = job(grow(rows[:50]), out, keep_scores=False, unit_pairs=unit_pairs)
    assert [file for file in made["files"] if "beside" in file] == []
    with pytest.raises(JobChanged, match=r"was finished without the scores .* \(keep_scores\)"):
        appended(grow(rows[50:]), out, unit_pairs=unit_pairs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row | {"extra": 1}, "03.parquet has a column extra, .*00.parquet has none"),
        (lambda row: row | {"place": 0.5}, "has place: int64, .*03.parquet has place: double"),
        (lambda row: row | {"place": None}, ""),
    ],
)
def test_columns_of_other_types_are_refused_by_file(tmp_path, rows, grow, change, said):
    job(grow(rows[:60], files=3), tmp_path / "out", **SMALL)
    folder = grow([change(row) for row in rows[60:]])
    if said:
        with pytest.raises(InvalidRequest, match=said):
            appended(folder, tmp_path / "out")
    else:
        assert appended(folder, tmp_path / "out")["counts"]["rows_in"] == 100


def test_wider_numbers_than_the_output_has_are_refused(tmp_path, rows):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number, kind in enumerate((pa.int32(), pa.int64())):
        table = pa.Table.from_pylist(rows[number * 50 : number * 50 + 50])
        place = table.schema.get_field_index("place")
        table = table.set_column(place, "place", table["place"].cast(kind))
        pq.write_table(table, folder / f"{number}.parquet")
        if not number:
            job(folder, out, **SMALL)
    with pytest.raises(InvalidRequest, match=r"new files need int64, the .* has int32"):
        appended(folder, out)


def test_csv_keeps_the_types_that_it_had(tmp_path, rows):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number, code in enumerate(("007", "8")):
        table = pa.Table.from_pylist([{**r, "code": code} for r in rows[number * 50 :][:50]])
        pyarrow.csv.write_csv(table, folder / f"{number}.csv")
        made = appended(f"{folder}/*.csv", out)
    assert [Path(item["path"]).name for item in made["inputs"]] == ["0.csv", "1.csv"]
    assert {row["code"] for row in rows_of(out)} == {"007", "8"}
    assert verify(out)["rows_out"] == 99
    (folder / "2.csv").write_text("")
    assert appended(f"{folder}/*.csv", out)["counts"]["rows_out"] == 99
    (folder / "1.csv").write_text("query_id,query,doc_id,text\n")
    with pytest.raises(FileChanged, match=r"1\.csv"):
        appended(f"{folder}/*.csv", out)


def test_files_that_could_not_be_read_stay_on_the_account(tmp_path, rows, grow):
    out, folder = tmp_path / "out", grow(rows[:60], files=3)
    (folder / "01.parquet").write_bytes(b"no Parquet")
    body = bytearray((folder / "02.parquet").read_bytes())
    body[200:400] = bytes(200)
    (folder / "02.parquet").write_bytes(body)
    made = job(folder, out, max_bad_files=2, **SMALL)
    bad = [Path(file["path"]).name for file in made["bad_files"]]
    assert (bad, made["counts"]["rows_in"]) == (["01.parquet", "02.parquet"], 40)
    grow(rows[60:])
    with pytest.raises(TooManyBadFiles, match="2 input files cannot be read"):
        appended(folder, out, max_bad_files=1)
    again = appended(folder, out, max_bad_files=2)
    assert again["bad_files"] == made["bad_files"]
    assert verify(out)["rows_in"] == 80


def test_texts_that_changed_are_refused(tmp_path):
    pq.write_table(pa.table({"query_id": ["q"], "query": ["lamp"]}), tmp_path / "queries.parquet")
    for folder in ("in", "documents"):
        (tmp_path / folder).mkdir()

    def grow(number):
        ids = pa.table({"query_id": ["q"], "doc_id": [f"d{number}"]})
        pq.write_table(ids, tmp_path / "in" / f"{number}.parquet")
        text = pa.table({"doc_id": [f"d{number}"], "text": [f"lamp {number}"]})
        pq.write_table(text, tmp_path / "documents" / f"{number}.parquet")

    tables = {"queries": "queries.parquet", "documents": "documents"}
    tables = {name: str(tmp_path / path) for name, path in tables.items()}
    grow(0)
    job(tmp_path / "in", tmp_path / "out", **tables)
    grow(1)
    with pytest.raises(JobChanged, match="--queries or --documents have changed since the output"):
        appended(tmp_path / "in", tmp_path / "out", **tables, unit_pairs=100)


def test_a_table_grows_by_the_files_of_its_next_version(tmp_path, rows):
    table, out = str(tmp_path / "in"), tmp_path / "out"
    write_deltalake(table, pa.Table.from_pylist(rows[:50]))
    job(table, out, **SMALL)
    write_deltalake(table, pa.Table.from_pylist(rows[50:]), mode="append")
    assert job(table, out, **SMALL)["counts"]["rows_in"] == 50
    made = appended(table, out)
    assert {item["snapshot"] for item in made["inputs"]} == {"Delta version 0", "Delta version 1"}
    ids = {(row["query_id"], row["doc_id"]) for row in rows_of(out)}
    assert len(ids) == verify(out)["rows_out"] == 99
    DeltaTable(table).delete("place = 3")
    with pytest.raises(FileChanged, match="a table rewrites files when rows of it are changed"):
        appended(table, out)


def test_what_is_made_of_a_result_is_made_of_all_of_it(tmp_path, rows, grow):
    out, lines, run = tmp_path / "out", tmp_path / "out.jsonl", tmp_path / "out.run"
    extra = {"json_lines": str(lines), "trec_run": str(run), "format": "delta"}
    job(grow(rows[:50]), out, **SMALL, **extra)
    folder = grow(rows[50:])
    with pytest.raises(JobChanged, match="is a Delta table: append to it with --format delta"):
        appended(folder, out)
    appended(folder, out, **extra)
    found = rows_of(out)
    assert len(found) == 99
    assert [json.loads(line) for line in lines.read_text().splitlines()] == in_order(out)
    assert len(run.read_text().splitlines()) == 99
    table = DeltaTable(str(out / "data")).to_pyarrow_table().to_pylist()
    assert sorted(table, key=lambda r: (r["query_id"], r["doc_id"], r["rank"])) == found
    assert "50 rows of 1 files to" in (out / "_report.html").read_text()
    assert main(["verify", str(out)]) == 0


def test_a_dry_run_says_what_would_be_added(tmp_path, rows, grow, capfd):
    out = tmp_path / "out"
    job(grow(rows[:50]), out, **SMALL)
    folder = grow(rows[50:])
    options = ["--input", str(folder), "--output", str(out), "--model", "lexical"]
    options += ["--unit-pairs", "10", "--dry-run", "--append"]
    assert main(options) == 0
    said = capfd.readouterr().out
    assert "appends: 1 files with 50 rows; the others are finished" in said
    assert main([*options, "--top-k", "1"]) == 3
    (folder / "00.parquet").unlink()
    assert main(options) == 3
    assert "00.parquet" in capfd.readouterr().err


def test_append_and_overwrite_do_not_go_together():
    with pytest.raises(ValueError, match="append adds to the finished result that overwrite"):
        RerankJobConfig(input=("in",), output="out", append=True, overwrite=True)


@pytest.mark.parametrize("finished", [False, True])
def test_files_that_come_while_a_run_is_broken_off_cost_no_score(tmp_path, rows, grow, finished):
    out, counting = tmp_path / "out", Counting()
    folder = grow(rows[:30])
    if finished:
        appended(folder, out, counting)
        grow(rows[30:60])
    with pytest.raises(Stop):
        appended(folder, out, counting, engine=StopAfter(2))
    grow(rows[60:])
    appended(folder, out, counting)
    counts = verify(out)
    assert counts["rows_in"] == (100 if finished else 70)
    assert counting.pairs == counts["pairs_scored_once"]


def test_an_append_whose_version_is_gone_begins_anew(tmp_path, rows):
    table, out = str(tmp_path / "in"), tmp_path / "out"
    write_deltalake(table, pa.Table.from_pylist(rows[:50]))
    job(table, out, **SMALL)
    write_deltalake(table, pa.Table.from_pylist(rows[50:80]), mode="append")
    with pytest.raises(Stop):
        appended(table, out, engine=StopAfter(2))
    write_deltalake(table, pa.Table.from_pylist(rows[80:]), mode="append")
    DeltaTable(table).create_checkpoint()
    for version in range(2):
        (tmp_path / "in" / "_delta_log" / f"{version:020}.json").unlink()
    assert appended(table, out)["counts"]["rows_in"] == 100
    assert verify(out)["rows_out"] == 99
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_what_an_abandoned_append_has_left_is_dropped(tmp_path, rows, grow):
    out, folder = tmp_path / "out", grow(rows[:50])
    job(folder, out, **SMALL)
    grow(rows[50:])
    with pytest.raises(Stop):
        appended(folder, out, engine=StopAfter(2))
    (folder / "01.parquet").unlink()
    grow(rows[50:80])
    assert appended(folder, out)["counts"]["rows_in"] == 80
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.seconds
@thirds
def test_killed_at_any_change_readers_see_the_old_whole_or_the_new(place, memory, make_rows, third):
    rows, given = make_rows(3, 12), memory / "in"
    rows[17]["text"] = None
    given.mkdir()
    options = {"unit_pairs": 9, "top_k": 7, "file_size": 20_000, "format": "delta"}
    parts = [pa.Table.from_pylist(rows[:18]), pa.Table.from_pylist(rows[18:])]
    pq.write_table(parts[0], given / "0.parquet", row_group_size=9)

    def begun(name):
        """A finished output of the first file, and a second file."""
        (given / "1.parquet").unlink(missing_ok=True)
        job(given, place.out(f"all/{name}"), **options)
        pq.write_table(parts[1], given / "1.parquet", row_group_size=9)
        return place.out(f"all/{name}")

    def add(out):
        job(given, out, append=True, **options)

    counted = begun("counted")
    old = in_order(counted)
    job(given, place.out("whole"), **options)
    new, whole = in_order(place.out("whole")), rows_of(place.out("whole"))
    place.arm(place.out("all"))
    add(counted)
    changes = place.disarm()
    assert changes > 25
    for change in range(third, changes, 3):
        out = begun(f"out{change}")
        place.kill(place.out("all"), change, partial(add, out))
        for held in (out, place.following(out)):
            place.forget_owner(held)
        assert in_order(out) in (old, new), f"killed at change {change}"
        add(out)
        assert in_order(out) == new, f"killed at change {change}"
        assert (rows_of(out), verify(out)["rows_in"]) == (whole, 36)
        assert b"18 rows of 1 files to" in bytes(open_store(out).read("_report.html"))
        assert sorted(delta_rows(out), key=str) == sorted(new, key=str)
        left = [name for name in open_store(out).children() if not name.startswith(".")]
        assert left == ["_SUCCESS", "_job", "_manifest.json", "_quarantine", "_report.html", "data"]
        assert open_store(place.following(out)).children() == []
