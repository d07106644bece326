"""Pairs that a former job has scored take their scores from there, whatever else has changed."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from places import thirds
from protocol import Counting, Stop, StopAfter, job

import pipelines
from pipelines.commits.store import open_store
from pipelines.commits.verify import verify
from pipelines.growing import reuse
from pipelines.growing.kept import WANTED, by_hash, found_in, hashes_of
from pipelines.identity import JobChanged
from pipelines.rerank_job import main
from rerank_core import InvalidRequest, QueryDocumentPair, ScorerConfig
from rerank_core.config import EMBEDDED_MODEL_DIR

SMALL = {"unit_pairs": 10}


@pytest.fixture
def rows(make_rows):
    """80 pairs of 4 queries, mixed, one without a text."""
    rows = make_rows(4, 20)
    rows[17]["text"] = None
    return rows


def write(folder, rows, files=2, group=15):
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    step = -(-len(rows) // files)
    for number in range(files):
        table = pa.Table.from_pylist(rows[number * step : (number + 1) * step])
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
    return folder


def in_order(out):
    return pipelines.read_output(out).to_table()


def changed(rows):
    """Other order, other ids, 5 other documents, one other query, rows gone and rows new."""
    rows = [dict(row) for row in reversed(rows[10:])]
    for row in rows[:5]:
        row["text"] += " lamp"
    rows[6]["query"] = "another lamp"
    rows[7]["doc_id"] = "renamed"
    return [*rows, rows[8] | {"doc_id": "copy"}, rows[9] | {"doc_id": "new", "text": "a lamp"}]


# 5 documents and a query of the 70 rows that are left are other ones, and one row is new.
NEW = 5 + 1 + 1


@pytest.mark.seconds
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 3},
        {"top_k": 3, "duplicates": "set_aside", "columns": ("place",)},
        {"unit_pairs": 1000},
        {"file_size": 5_000},
        {"scorer": ScorerConfig(model="lexical", long_documents="split", max_length=20)},
    ],
)
def test_a_changed_run_scores_only_what_changed_and_comes_out_the_same(
    tmp_path, place, rows, changes
):
    options = SMALL | changes
    former = place.out("former")
    # Cut by top_k: its score is kept nevertheless.
    job(write(tmp_path / "in", rows, files=3), former, **options | {"top_k": 1})
    given, counting = write(tmp_path / "in", changed(rows)), Counting()
    plain = job(given, tmp_path / "plain", **options)
    made = job(given, place.out("out"), counting, reuse=former, **options)
    assert in_order(place.out("out")).equals(in_order(tmp_path / "plain"))
    # A row without a text is set aside before it is scored.
    reused = 70 + 2 - NEW - sum(row["text"] is None for row in changed(rows))
    assert made["counts"] == plain["counts"] | {"pairs_reused": made["counts"]["pairs_reused"]}
    assert (made["counts"]["pairs_reused"], counting.pairs) == (reused, NEW)
    assert verify(place.out("out"))["pairs_reused"] == reused
    report = bytes(open_store(place.out("out")).read("_report.html")).decode()
    assert f"<td>pairs reused</td><td>{reused}</td>" in report


def test_nested_rows_and_pairs_take_scores_from_each_other(tmp_path, rows):
    rows = [row for row in rows if row["text"]]
    former, counting = tmp_path / "former", Counting()
    job(write(tmp_path / "pairs", rows), former, **SMALL)
    queries = sorted({(row["query_id"], row["query"]) for row in rows})
    nested = [
        {
            "query_id": name,
            "query": text,
            "candidates": [
                {"doc_id": row["doc_id"], "text": row["text"]}
                for row in rows
                if row["query_id"] == name
            ],
        }
        for name, text in queries
    ]
    given = write(tmp_path / "nested", nested)
    made = job(given, tmp_path / "out", counting, reuse=str(former), **SMALL)
    job(given, tmp_path / "plain", **SMALL)
    assert in_order(tmp_path / "out").equals(in_order(tmp_path / "plain"))
    assert (made["counts"]["pairs_reused"], counting.pairs) == (79, 0)
    again = job(tmp_path / "pairs", tmp_path / "back", counting, reuse=str(tmp_path / "out"))
    assert (again["counts"]["pairs_reused"], counting.pairs) == (79, 0)


def test_texts_that_are_looked_up_are_known_again(tmp_path):
    queries, documents = tmp_path / "queries.parquet", tmp_path / "documents.parquet"
    pq.write_table(pa.table({"query_id": ["q"], "query": ["red lamp"]}), queries)
    texts = {f"d{n}": f"lamp {n}" for n in range(6)}
    ids = pa.table({"query_id": ["q"] * 6, "doc_id": list(texts)})
    tables = {"queries": str(queries), "documents": str(documents)}
    for out in ("former", "out"):
        pq.write_table(pa.table({"doc_id": list(texts), "text": list(texts.values())}), documents)
        pq.write_table(ids, tmp_path / "in.parquet")
        former = {"reuse": str(tmp_path / "former")} if out == "out" else {}
        made = job(tmp_path / "in.parquet", tmp_path / out, **tables, **former)
        texts["d3"] = "no lamp"
    assert made["counts"]["pairs_reused"] == 5


def test_files_that_are_appended_may_know_their_pairs(tmp_path, rows):
    given, out = write(tmp_path / "in", rows), str(tmp_path / "out")
    job(given, out, **SMALL)
    pq.write_table(pa.Table.from_pylist([rows[0] | {"doc_id": "x"}]), given / "9.parquet")
    made = job(given, out, append=True, reuse=out, **SMALL)
    assert (made["counts"]["pairs_reused"], made["counts"]["rows_in"]) == (1, 81)
    again = job(write(given, rows), tmp_path / "again", reuse=out, **SMALL)
    assert again["counts"]["pairs_reused"] == 79


def test_an_output_may_be_overwritten_from_itself(tmp_path, rows):
    given, out, counting = write(tmp_path / "in", rows), str(tmp_path / "out"), Counting()
    job(given, out, **SMALL)
    write(given, changed(rows))
    made = job(given, out, counting, overwrite=True, reuse=out, **SMALL)
    assert counting.pairs == NEW
    assert made["counts"]["rows_in"] == verify(out)["rows_in"] == 72


@pytest.mark.parametrize("again", [True, False])
def test_a_run_that_is_broken_off_goes_on_with_or_without_the_former(tmp_path, rows, again):
    given, former, out = write(tmp_path / "in", rows), tmp_path / "former", tmp_path / "out"
    job(given, former, **SMALL)
    job(write(given, changed(rows)), tmp_path / "plain", **SMALL)
    reused = {"reuse": str(former)}
    with pytest.raises(Stop):
        job(given, out, engine=StopAfter(2), **reused, **SMALL)
    job(given, out, **reused if again else {}, **SMALL)
    assert in_order(out).equals(in_order(tmp_path / "plain"))
    assert verify(out)["rows_in"] == 72


@pytest.mark.parametrize("of_a_bucket", [40, 1_000_000])
def test_a_run_that_is_broken_off_goes_on_with_another_former(
    tmp_path, rows, monkeypatch, of_a_bucket
):
    monkeypatch.setattr(reuse, "bucket_count", lambda rows: -(-rows // of_a_bucket))
    given, counting = tmp_path / "in", Counting()
    more = [row | {"query": f"another {row['query']}"} for row in rows]
    for name, part in (("small", rows[:20]), ("large", rows + more)):
        job(write(given, part), tmp_path / name, **SMALL)
    out, options = tmp_path / "out", {"unit_pairs": 7}
    write(given, rows)
    with pytest.raises(Stop):
        job(given, out, engine=StopAfter(2), reuse=str(tmp_path / "small"), **options)
    job(given, out, counting, reuse=str(tmp_path / "large"), **options)
    assert counting.pairs == 0
    job(given, tmp_path / "plain", **options)
    assert in_order(out).equals(in_order(tmp_path / "plain"))


@pytest.mark.seconds
@thirds
def test_killed_at_any_change_a_run_that_reuses_ends_with_the_same_rows(
    place, memory, make_rows, third
):
    rows = make_rows(3, 12)
    options = {"unit_pairs": 20, "top_k": 7, "reuse": place.out("former")}
    given = write(memory / "in", rows, group=20)
    job(given, place.out("former"), unit_pairs=20)
    write(given, changed(rows), group=20)
    job(given, memory / "plain", unit_pairs=20, top_k=7)
    expected = in_order(memory / "plain")
    counted = place.out("counted")
    place.arm(counted)
    job(given, counted, **options)
    changes = place.disarm()
    assert changes > 30
    for change in range(third, changes, 3):
        out = place.out(f"out{change}")
        place.kill(out, change, partial(job, given, out, **options))
        place.forget_owner(out)
        job(given, out, **options)
        assert in_order(out).equals(expected), f"killed at change {change}"
        assert verify(out)["rows_in"] == 28


@pytest.mark.parametrize(
    ("former", "run", "kind", "said"),
    [
        ({}, {"scorer": ScorerConfig(model="lexical", max_length=9)}, JobChanged, "fingerprint"),
        ({"keep_scores": False}, {}, InvalidRequest, "without the hashes of its texts"),
        ({}, {"scorer": ScorerConfig(model="lexical", first_stage={"model": "lexical"})},
         InvalidRequest, "with a first stage a pair's score depends on"),
        ({}, {"reuse": "nowhere"}, InvalidRequest, "nowhere holds no finished job"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_over_is_refused_before_a_model_is_loaded(
    tmp_path, rows, former, run, kind, said
):
    def no_model(config):
        raise AssertionError("a model was loaded")

    given = write(tmp_path / "in", rows)
    job(given, tmp_path / "former", **SMALL | former)
    options = SMALL | {"top_k": 2, "reuse": str(tmp_path / "former")} | run
    with pytest.raises(kind, match=said):
        job(given, tmp_path / "out", no_model, **options)


def test_weights_that_are_others_on_the_machines_are_refused(tmp_path, rows):
    given = write(tmp_path / "in", rows)
    job(given, tmp_path / "former", **SMALL)
    (tmp_path / "former" / "_job" / "model.json").write_text('"another"')
    with pytest.raises(Exception, match="this job began with another"):
        job(given, tmp_path / "out", reuse=str(tmp_path / "former"), **SMALL)


def test_a_dry_run_refuses_what_the_job_would(tmp_path, rows, capfd):
    given = write(tmp_path / "in", rows)
    options = ["--input", str(given), "--output", str(tmp_path / "out"), "--model", "lexical"]
    assert main([*options, "--dry-run", "--reuse", str(tmp_path / "none")]) == 2
    assert "holds no finished job" in capfd.readouterr().err


@pytest.mark.seconds
def test_scores_of_the_embedded_model_come_out_bit_for_bit(tmp_path, rows):
    scorer = ScorerConfig(model=str(EMBEDDED_MODEL_DIR))
    given, former = write(tmp_path / "in", rows), tmp_path / "former"
    job(given, former, scorer=scorer)
    made = job(given, tmp_path / "out", scorer=scorer, reuse=str(former), **SMALL)
    assert made["counts"]["pairs_reused"] == 79
    found, expected = in_order(tmp_path / "out"), in_order(former)
    assert found.equals(expected)


def test_no_task_holds_more_than_its_part(tmp_path, rows, monkeypatch):
    given, former = write(tmp_path / "in", rows), tmp_path / "former"
    job(given, former, file_size=2_000, **SMALL)
    held = []
    monkeypatch.setattr(reuse, "task_rows", lambda rows: 20)
    monkeypatch.setattr(reuse, "bucket_count", lambda rows: 7)
    plain = reuse.read_parts

    def counted(*arguments):
        found = plain(*arguments)
        held.append(len(found))
        return found

    monkeypatch.setattr(reuse, "read_parts", counted)
    made = job(given, tmp_path / "out", reuse=str(former), **SMALL)
    assert made["counts"]["pairs_reused"] == 79
    assert max(held) <= 40


texts = st.text(alphabet="ab\ud800", max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=30), st.lists(st.tuples(texts, texts)))
def test_pairs_are_found_by_their_texts_and_no_others(known, wanted):
    def of(pairs):
        made = np.zeros(len(pairs), WANTED)
        if pairs:
            made["high"], made["low"] = hashes_of([QueryDocumentPair(*p) for p in pairs]).T
        made["unit"] = np.arange(len(pairs))
        return made

    there = by_hash(of(known))
    found = found_in(there, of(wanted)).tolist()
    places = [int(there["unit"][place]) if place >= 0 else None for place in found]
    assert places == [known.index(pair) if pair in known else None for pair in wanted]


def test_hashes_that_share_a_half_are_told_apart():
    known = np.zeros(3, WANTED)
    known["high"], known["low"] = 7, (3, 1, 2)
    wanted = np.zeros(4, WANTED)
    wanted["high"], wanted["low"] = (7, 7, 7, 8), (2, 4, 3, 1)
    assert found_in(by_hash(known), wanted).tolist() == [1, -1, 2, -1]
