"""The stage in this process: tables and frames in, the same rows with scores and ranks out."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pipelines
from pipelines.columns import ColumnNames
from pipelines.config import StageConfig
from pipelines.ranks.tables import rank_pairs
from pipelines.stages.rerank_tables import RerankTables
from rerank_core import (
    Candidate,
    InvalidRequest,
    ModelUnavailable,
    Reranker,
    RerankRequest,
    ScorerConfig,
    load_scorer,
)
from rerank_core.types import PairScores

LEXICAL = ScorerConfig(model="lexical")
PRINT = LEXICAL.fingerprint()


def pair(query_id, doc_id, text, query="river stone"):
    return {"query_id": query_id, "query": query, "doc_id": doc_id, "text": text}


def nested_of(rows):
    """The same candidates, a row per query."""
    found = {}
    for row in rows:
        query = found.setdefault(row["query_id"], {k: row[k] for k in ("query_id", "query")})
        candidate = {"doc_id": row["doc_id"], "text": row["text"]}
        query.setdefault("candidates", []).append(candidate)
    return list(found.values())


def by_core(rows, top_k=None):
    """(query_id, doc_id): (score, rank), from the core alone."""
    found = {}
    for row in nested_of(rows):
        candidates = tuple(Candidate(c["doc_id"], c["text"]) for c in row["candidates"])
        request = RerankRequest(row["query"], candidates, top_k)
        (result,) = Reranker(load_scorer(LEXICAL)).rerank([request])
        found |= {(row["query_id"], hit.doc_id): (hit.score, hit.rank) for hit in result}
    return found


@pytest.mark.parametrize("top_k", [None, 3])
def test_pairs_get_the_scores_and_ranks_of_the_core_wherever_they_lie(make_rows, top_k):
    rows = make_rows(7, 9)
    out = pipelines.rerank(pa.Table.from_pylist(rows), LEXICAL, top_k=top_k, batch_rows=10)
    ranked = {(r["query_id"], r["doc_id"]): (r["score"], r["rank"]) for r in out.to_pylist()}
    assert ranked == by_core(rows, top_k)
    assert len(ranked) == 7 * (top_k or 9)
    order = [(row["query_id"], row["doc_id"]) for row in rows]
    assert list(ranked) == [key for key in order if key in ranked]
    names = ["query_id", "query", "doc_id", "text", "first_stage", "place"]
    assert out.schema.names == [*names, "score", "rank", "reason", "score_fingerprint"]
    assert out.schema.metadata == {b"score_fingerprint": PRINT.encode()}
    assert out["score_fingerprint"].type == pa.dictionary(pa.int32(), pa.string())
    assert out["score_fingerprint"].unique().to_pylist() == [PRINT]


def test_nested_rows_are_sorted_best_first_with_the_scores_of_the_core(make_rows):
    rows = make_rows(5, 8)
    out = pipelines.rerank(pa.Table.from_pylist(nested_of(rows)), LEXICAL, top_k=4, batch_rows=2)
    assert [row["query_id"] for row in out.to_pylist()] == [r["query_id"] for r in nested_of(rows)]
    hits = [(row["query_id"], hit) for row in out.to_pylist() for hit in row["candidates"]]
    assert [hit["rank"] for _, hit in hits] == [1, 2, 3, 4] * 5
    ranked = {(query, hit["doc_id"]): (hit["score"], hit["rank"]) for query, hit in hits}
    assert ranked == by_core(rows, 4)


def test_bad_pairs_come_out_with_a_reason_in_their_place():
    rows = [
        pair(1, "a", "lamp"),
        pair(1, "b", None),
        pair(1, "c", "river"),
        pair(1, "d", " "),
        pair(None, "e", "river"),
        pair(2, "f", "river", query=None),
    ]
    out = pipelines.rerank(pa.Table.from_pylist(rows), LEXICAL, top_k=1, fingerprint_column=None)
    assert [(r["doc_id"], r["rank"], r["reason"]) for r in out.to_pylist()] == [
        ("b", None, "null_text"),
        ("c", 1, None),
        ("d", None, "empty_text"),
        ("e", None, "null_query_id"),
        ("f", None, "null_query"),
    ]
    assert out["score"].is_null().to_pylist() == [True, False, True, True, True]
    assert out.schema.names[-1] == "reason"


def test_bad_candidates_come_last_and_bad_rows_say_why():
    texts = [{"doc_id": "a", "text": None}, {"doc_id": "b", "text": "river"}]
    rows = [
        {"query_id": 1, "query": "river", "candidates": texts},
        {"query_id": 2, "query": "", "candidates": texts},
        {"query_id": 3, "query": "river", "candidates": None},
        {"query_id": 4, "query": "river", "candidates": []},
    ]
    out = pipelines.rerank(pa.Table.from_pylist(rows), LEXICAL).to_pylist()
    assert [row["reason"] for row in out] == [None, "empty_query", "null_candidates", None]
    hits = [[(h["doc_id"], h["rank"], h["reason"]) for h in row["candidates"]] for row in out]
    assert hits == [
        [("b", 1, None), ("a", None, "null_text")],
        [("a", None, "empty_query"), ("b", None, "empty_query")],
        [],
        [],
    ]
    # A part of a data set in which no row has candidates does not know their fields.
    none = pa.Table.from_pylist(rows[3:])
    assert none["candidates"].type == pa.list_(pa.null())
    (row,) = pipelines.rerank(none, LEXICAL).to_pylist()
    assert (row["candidates"], row["reason"]) == ([], None)


def test_a_pair_that_the_scorer_fails_says_so_and_the_others_are_ranked():
    class Picky:
        def __init__(self, config):
            self.inner = load_scorer(config)
            self.info = self.inner.info

        def score(self, pairs):
            scores = self.inner.score(pairs)
            bad = [place for place, pair in enumerate(pairs) if "lamp" in pair.document]
            raw = scores.raw.copy()
            raw[bad] = np.nan
            return PairScores(raw, scores.tokens, scores.truncated, dict.fromkeys(bad, "too_big"))

    rows = [pair(1, "a", "lamp river stone"), pair(1, "b", "river"), pair(1, "c", "stone river")]
    config = StageConfig(scorer=LEXICAL)
    out = RerankTables(config, Picky)(pa.Table.from_pylist(rows)).to_pylist()
    assert [(r["rank"], r["reason"]) for r in out] == [(None, "too_big"), (2, None), (1, None)]
    out = RerankTables(config, Picky)(pa.Table.from_pylist(nested_of(rows))).to_pylist()
    hits = [(h["doc_id"], h["rank"], h["reason"]) for h in out[0]["candidates"]]
    assert hits == [("c", 1, None), ("b", 2, None), ("a", None, "too_big")]


def test_a_frame_keeps_its_other_columns_and_its_index():
    rows = [pair(1, "a", "lamp"), pair(1, "b", None), pair(1, "c", "river")]
    frame = pd.DataFrame(rows, index=["x", "y", "z"]).assign(mine=[object(), {1}, "word"])
    out = pipelines.rerank(frame, LEXICAL, top_k=1)
    assert out.index.tolist() == ["y", "z"]
    assert out["mine"].tolist() == frame["mine"].tolist()[1:]
    assert out["rank"].tolist() == [pd.NA, 1]
    assert (out["rank"].dtype, out["score"].dtype) == ("Int32", "float32")
    assert out["score_fingerprint"].tolist() == [PRINT, PRINT]
    assert list(frame.columns) == [*rows[0], "mine"]
    nested = pipelines.rerank(pd.DataFrame(nested_of([rows[0], rows[2]])), LEXICAL)
    assert [hit["doc_id"] for hit in nested["candidates"][0]] == ["c", "a"]


def test_rows_without_any_get_the_columns():
    pairs, nested = pa.Table.from_pylist([pair(1, "a", "b")]), [nested_of([pair(1, "a", "b")])]
    assert pipelines.rerank(pairs.slice(0, 0), LEXICAL).schema.names[4:] == [
        "score", "rank", "reason", "score_fingerprint"
    ]  # fmt: skip
    table = pa.Table.from_pylist(nested[0]).slice(0, 0)
    whole = pipelines.rerank(pa.Table.from_pylist(nested[0]), LEXICAL)
    assert pipelines.rerank(table, LEXICAL).schema == whole.schema


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k: Input should be greater"),
        ({"names": ColumnNames(text="passage")}, "no column passage"),
        ({"names": ColumnNames(score="mine")}, "already has a mine"),
        ({"reason_column": "mine"}, "already have a mine"),
        ({"shape": "nested"}, "no column candidates"),
        ({"scorer": ScorerConfig(model="lexical", first_stage={"model": "lexical"})}, "nested"),
    ],
)
@pytest.mark.parametrize("kind", ["table", "frame"])
def test_what_cannot_work_is_refused(options, message, kind):
    rows = [pair(1, "a", "river") | {"mine": 1}]
    data = pa.Table.from_pylist(rows) if kind == "table" else pd.DataFrame(rows)
    with pytest.raises(InvalidRequest, match=message):
        pipelines.rerank(data, **({"scorer": LEXICAL} | options))


def test_other_kinds_of_rows_and_mixed_columns_are_refused_without_their_words():
    with pytest.raises(InvalidRequest, match=r"not builtins\.list"):
        pipelines.rerank([pair(1, "a", "river")], LEXICAL)
    frame = pd.DataFrame([pair(1, "a", "xyzzy-private"), pair(1, "b", 7)])
    with pytest.raises(InvalidRequest, match="several types") as caught:
        pipelines.rerank(frame, LEXICAL)
    assert "xyzzy" not in str(caught.value)


def test_scores_of_two_fingerprints_are_not_ranked_together():
    config = StageConfig(scorer=LEXICAL)
    tables = []
    for text in ("river", "stone"):
        table = pa.Table.from_pylist([pair(1, text, text)])
        tables.append(RerankTables(config).scored(table))
    place = tables[0].schema.get_field_index("score_fingerprint")
    other = pa.array(["another"]).dictionary_encode()
    tables[1] = tables[1].set_column(place, "score_fingerprint", other)
    with pytest.raises(ModelUnavailable, match="2 models cannot be ranked together"):
        rank_pairs(pa.concat_tables(tables), config, gathered=True)


def test_gathered_pairs_come_out_query_by_query_best_first_and_ties_go_by_id():
    config = StageConfig(scorer=LEXICAL, top_k=3)
    rows = [pair(2, "b", "river"), pair(1, "z", "river"), pair(1, "d", None),
            pair(1, "c", "river"), pair(2, "a", "river stone"), pair(1, "e", "lamp")]  # fmt: skip
    scored = RerankTables(config).scored(pa.Table.from_pylist(rows))
    want = {1: [("c", 1), ("z", 2), ("e", 3), ("d", None)], 2: [("a", 1), ("b", 2)]}
    for shuffled in (scored, scored.take([5, 3, 1, 0, 4, 2])):
        out = rank_pairs(shuffled, config, gathered=True).to_pylist()
        queries = [row["query_id"] for row in out]
        assert queries in ([1] * 4 + [2] * 2, [2] * 2 + [1] * 4)
        for query, ranked in want.items():
            rows = [(r["doc_id"], r["rank"]) for r in out if r["query_id"] == query]
            assert rows == ranked
