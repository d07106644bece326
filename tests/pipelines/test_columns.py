"""What else the output can carry: the input's own columns, partitions, passages, probabilities."""

from __future__ import annotations

import datetime
import decimal
import re
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from protocol import LEXICAL, job, rows_of

import pipelines
from pipelines.commits.verify import verify
from pipelines.identity import JobChanged
from pipelines.refusals import DuplicateIds
from rerank_core import (
    Candidate,
    InvalidRequest,
    Reranker,
    RerankRequest,
    ScorerConfig,
    load_scorer,
)
from rerank_core.calibration import Calibration


def test_columns_of_every_kind_pass_through_with_their_types(tmp_path):
    columns = {
        "query_id": pa.array([1, 1], pa.int16()),
        "query": ["a b", "a b"],
        "doc_id": ["x", "y"],
        "text": pa.array(["a", "a b"], pa.large_string()),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "seen": pa.array([datetime.datetime(2026, 1, 2)] * 2, pa.timestamp("us", "Asia/Shanghai")),
        "vector": pa.array([[0.5, 1.5], []], pa.list_(pa.float32())),
        "facts": pa.array([{"a": 1, "b": [True]}, None]),
        "words": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "image": pa.array([b"\xff\x00", None], pa.binary()),
        "lang": pa.array(["en", "zh"]).dictionary_encode(),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "in.parquet")
    job(tmp_path / "in.parquet", tmp_path / "out")
    out = pq.read_table(tmp_path / "out")
    assert out.select(list(columns)).equals(pq.read_table(tmp_path / "in.parquet"))
    assert out["rank"].to_pylist() == [2, 1]


def test_columns_are_kept_by_name_and_wrong_names_are_refused(tmp_path, pairs_input):
    job(pairs_input, tmp_path / "out", columns=("query_id", "doc_id", "place"))
    out = pq.read_table(tmp_path / "out")
    assert out.column_names == ["query_id", "doc_id", "place", "score", "rank"]
    with pytest.raises(InvalidRequest, match="--columns names docid; the input has doc_id, "):
        job(pairs_input, tmp_path / "other", columns=("query_id", "docid"))


def test_scores_come_out_without_texts_and_grow_so(tmp_path, make_rows, write_files):
    rows, ids = make_rows(5, 20), ("query_id", "doc_id")
    out, folder = tmp_path / "out", write_files(tmp_path / "in", rows[:60], files=2, group=15)
    options = {"columns": ids, "unit_pairs": 20, "top_k": 7}
    job(folder, out, **options)
    pq.write_table(pa.Table.from_pylist(rows[60:]), folder / "2.parquet")
    made = job(folder, out, append=True, **options)
    whole = job(folder, tmp_path / "whole")
    found = pipelines.read_output(out).to_table()
    assert found.column_names == [*ids, "score", "rank"]
    kept = pq.read_table(tmp_path / "whole").select(found.column_names).to_pylist()
    assert sorted(map(str, found.to_pylist())) == sorted(str(r) for r in kept if r["rank"] <= 7)
    assert (verify(out), whole["counts"]["rows_out"]) == (made["counts"], 100)


def test_scores_of_nested_rows_come_out_without_texts(tmp_path, make_rows, write_files):
    rows = [{"query_id": "q", "query": "river", "candidates": make_rows(1, 5)}]
    folder = write_files(tmp_path / "in", rows, files=1, group=5)
    job(folder, tmp_path / "out", columns=("query_id", "candidates.doc_id"))
    (row,) = pipelines.read_output(tmp_path / "out").to_table().to_pylist()
    assert list(row) == ["query_id", "candidates"]
    assert [list(one) for one in row["candidates"]] == [["doc_id", "score", "rank"]] * 5
    assert verify(tmp_path / "out")["pairs_out"] == 5


def test_what_the_page_says_sorts_and_partitions_an_output(tmp_path, monkeypatch, make_rows):
    monkeypatch.chdir(tmp_path)
    rows = [row | {"lang": "en" if row["place"] % 2 else "zh"} for row in make_rows(5, 20)]
    pq.write_table(pa.Table.from_pylist(rows), "in.parquet")
    job(tmp_path / "in.parquet", tmp_path / "reranked", unit_pairs=10)
    page = (Path(__file__).parents[2] / "docs" / "offline.md").read_text(encoding="utf-8")
    lines = re.findall(r'^duckdb -c "(.+)"$', page, re.MULTILINE)
    for line in lines:
        duckdb.sql(line)
    found = pq.read_table("sorted.parquet", columns=["query_id", "rank"]).to_pylist()
    ranked = [(f"q{query}", rank) for query in range(5) for rank in range(1, 21)]
    assert [tuple(row.values()) for row in found] == ranked
    assert sorted(path.name for path in Path("by_lang").iterdir()) == ["lang=en", "lang=zh"]
    assert pq.read_table("by_lang").num_rows == 100


def test_partitions_become_columns_and_are_found_by_folder_and_glob(tmp_path, make_rows):
    rows = make_rows(4, 6)
    for number, row in enumerate(rows):
        row["part"] = number % 3
    for lang in ("en", "zh"):
        for part in range(3):
            folder = tmp_path / "in" / f"lang={lang}" / f"part={part}"
            folder.mkdir(parents=True)
            mine = [
                {name: value for name, value in row.items() if name != "part"}
                for row in rows
                if row["part"] == part and (row["query_id"] in ("q0", "q1")) == (lang == "en")
            ]
            pq.write_table(pa.Table.from_pylist(mine), folder / "0.parquet")
    job(tmp_path / "in", tmp_path / "out", unit_pairs=5)
    got = {row["doc_id"]: (row["lang"], row["part"]) for row in rows_of(tmp_path / "out")}
    assert got == {
        row["doc_id"]: ("en" if row["query_id"] in ("q0", "q1") else "zh", row["part"])
        for row in rows
    }
    job(tmp_path / "in" / "lang=*" / "part=1", tmp_path / "some")
    job(tmp_path / "in" / "**" / "*.parquet", tmp_path / "all")
    assert {row["part"] for row in rows_of(tmp_path / "some")} == {1}
    assert len(rows_of(tmp_path / "all")) == 24


def test_probabilities_stand_beside_scores_where_a_calibration_is_given(tmp_path, pairs_input):
    path = tmp_path / "calibration.json"
    Calibration(2.0, -1.0, LEXICAL.fingerprint(), 10).save(path)
    scorer = ScorerConfig(model="lexical", calibration=str(path))
    job(pairs_input, tmp_path / "out", scorer=scorer)
    rows = rows_of(tmp_path / "out")
    reranker = Reranker(load_scorer(scorer), Calibration.load(path, LEXICAL.fingerprint()))
    mine = [row for row in rows if row["query_id"] == "q3"]
    asked = RerankRequest(mine[0]["query"], tuple(Candidate(r["doc_id"], r["text"]) for r in mine))
    wanted = {hit.doc_id: hit.calibrated_score for hit in reranker.rerank([asked])[0].ranked}
    assert {r["doc_id"]: r["calibrated_score"] for r in mine} == pytest.approx(wanted)
    Calibration(3.0, -1.0, LEXICAL.fingerprint(), 10).save(path)
    with pytest.raises(JobChanged, match="calibration changed"):
        job(pairs_input, tmp_path / "out", scorer=scorer)
    Calibration(3.0, -1.0, "of another", 10).save(path)
    with pytest.raises(InvalidRequest, match="fitted on another scorer"):
        job(pairs_input, tmp_path / "new", scorer=scorer)


@pytest.mark.parametrize("nested", [False, True])
def test_a_split_documents_best_passage_is_told(tmp_path, nested):
    long = ". ".join(["nothing of interest is here"] * 30 + ["the green lamp"] + ["more"] * 60)
    pairs = {"query_id": [1, 1], "query": ["green lamp"] * 2, "doc_id": ["a", "b"],
             "text": [long, "a lamp"]}  # fmt: skip
    table = pa.table(pairs)
    if nested:
        candidates = [[{"doc_id": "a", "text": long}, {"doc_id": "b", "text": "a lamp"}]]
        table = pa.table({"query_id": [1], "query": ["green lamp"], "candidates": candidates})
    pq.write_table(table, tmp_path / "in.parquet")
    scorer = ScorerConfig(model="lexical", max_length=40, long_documents="split", passage_overlap=4)
    job(tmp_path / "in.parquet", tmp_path / "out", scorer=scorer)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    hits = rows[0]["candidates"] if nested else rows
    spans = {hit["doc_id"]: hit["passage"] for hit in hits}
    assert "the green lamp" in long[spans["a"]["start"] : spans["a"]["end"]]
    assert spans["a"]["end"] - spans["a"]["start"] < 400
    assert spans["b"] is None


def test_a_first_stage_is_refused_where_a_querys_rows_may_lie_apart(tmp_path, pairs_input):
    scorer = ScorerConfig(model="lexical", first_stage={"model": "lexical", "keep": 2})
    with pytest.raises(InvalidRequest, match="nested shape"):
        job(pairs_input, tmp_path / "out", scorer=scorer)


def no_model(config):
    raise AssertionError("a model was loaded")


def test_a_candidate_that_comes_twice_is_refused_before_a_model_is_loaded(tmp_path):
    rows = [
        {"query_id": n, "query": "lamp", "candidates": [{"doc_id": d, "text": d} for d in ids]}
        for n, ids in enumerate(["ab", "aba", "bb", ""])
    ]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "0.parquet")
    with pytest.raises(DuplicateIds, match="2 documents come twice"):
        job(tmp_path / "in", tmp_path / "out", no_model, unit_pairs=2, duplicates="refuse")


def test_documents_that_come_twice_anywhere_are_set_aside_by_option(
    tmp_path, make_rows, write_files
):
    rows = make_rows(5, 12)
    copies = [dict(rows[3]), dict(rows[3]), dict(rows[20]), dict(rows[41])]
    folder = write_files(tmp_path / "in", rows + copies, files=4, group=8)
    whole = write_files(tmp_path / "once", rows, files=4, group=8)
    job(whole, tmp_path / "expected", unit_pairs=8, top_k=5)
    options = {"unit_pairs": 8, "top_k": 5, "duplicates": "refuse"}
    with pytest.raises(DuplicateIds, match="4 documents come twice"):
        job(folder, tmp_path / "out", no_model, **options)
    assert job(whole, tmp_path / "unique", **options)["counts"]["rows_out"] == 25
    manifest = job(folder, tmp_path / "out", unit_pairs=8, top_k=5, duplicates="set_aside")
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "expected")
    assert verify(tmp_path / "out") == manifest["counts"]
    aside = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert {line["reason"] for line in aside} == {"duplicate"}
    job(folder, tmp_path / "kept", unit_pairs=8)
    assert len(rows_of(tmp_path / "kept")) == 64


def test_a_copy_in_another_unit_takes_no_place_among_the_best(tmp_path, write_files):
    texts = [("d1", "nothing at all"), ("z", "cold stone"), ("d1", "lamp music"), ("x", "lamp")]
    rows = [{"query_id": "q", "query": "lamp music", "doc_id": d, "text": t} for d, t in texts]
    write_files(tmp_path / "in", rows, files=1, group=10)
    job(tmp_path / "in", tmp_path / "out", unit_pairs=2, top_k=1, duplicates="set_aside")
    assert [(r["doc_id"], r["rank"]) for r in rows_of(tmp_path / "out")] == [("x", 1)]
    counts = verify(tmp_path / "out")
    assert (counts["rows_in"], counts["rows_cut"], counts["rows_quarantined"]) == (4, 2, 1)
