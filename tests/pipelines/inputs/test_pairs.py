import numpy as np
import pyarrow as pa
import pytest

from pipelines.columns import ColumnNames
from pipelines.inputs.pairs import Aside, extract
from pipelines.ranks.within_unit import keep_columns, rank_unit

NAMES = ColumnNames()


def scores(*values):
    return np.array(values, dtype=np.float32)


def added(*values):
    return [("score", pa.array(values, pa.float32()))]


def ranked_unit(table, found, raw, columns, shape, top_k):
    return rank_unit(table, found, raw, columns, shape=shape, names=NAMES, top_k=top_k)


def pairs_table(**changes):
    columns = {
        "query_id": ["a", "b", "a", "b"],
        "query": ["q", "r", "q", "r"],
        "doc_id": [1, 2, 3, 4],
        "text": ["t1", "t2", "t3", "t4"],
        "day": pa.array([1, 2, 3, 4], pa.date32()),
    }
    return pa.table(columns | changes)


def nested_table():
    candidates = [
        [{"doc_id": "1", "text": "x", "bm25": 0.5}, {"doc_id": "2", "text": "y", "bm25": 0.1}],
        [],
        [{"doc_id": "3", "text": None, "bm25": 0.2}, {"doc_id": "4", "text": "z", "bm25": 0.3}],
        [{"doc_id": "5", "text": "z", "bm25": 0.3}],
        None,
    ]
    return pa.table(
        {
            "query_id": [1, 2, 3, 4, 5],
            "query": ["p", "q", "r", None, "s"],
            "candidates": candidates,
            "lang": ["en"] * 5,
        }
    )


def test_pairs_keep_their_rows_in_order_and_gain_score_and_rank():
    table = pairs_table()
    found = extract(table, "pairs", NAMES, 100)
    ranked = ranked_unit(table, found, scores(1, 5, 2, 5), added(0.1, 0.5, 0.2, 0.5), "pairs", None)
    expected = table.append_column("score", pa.array([0.1, 0.5, 0.2, 0.5], pa.float32()))
    assert ranked.table == expected.append_column("rank", pa.array([2, 1, 1, 2], pa.int32()))


def test_order_follows_raw_scores_where_written_scores_tie():
    table = pairs_table()
    found = extract(table, "pairs", NAMES, 100)
    ranked = ranked_unit(table, found, scores(30, 40, 35, 50), added(1, 1, 1, 1), "pairs", 1)
    assert ranked.table.select(["doc_id", "rank"]).to_pylist() == [
        {"doc_id": 3, "rank": 1},
        {"doc_id": 4, "rank": 1},
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ["t1", None, "t3", "t4"]}, "null_text"),
        ({"text": ["t1", " \n", "t3", "t4"]}, "empty_text"),
        ({"query": ["q", None, "q", "r"]}, "null_query"),
        ({"query": ["q", "", "q", "r"]}, "empty_query"),
        ({"query_id": ["a", None, "a", "b"]}, "null_query_id"),
        ({"text": pa.array([b"t1", b"\xff\xfe", b"t3", b"t4"])}, "text_not_utf8"),
        (
            {"text": pa.array([b"t1", b"\xff\xfe", b"t3", b"t4"]).view(pa.string())},
            "text_not_utf8",
        ),
    ],
)
def test_a_row_that_cannot_be_scored_is_set_aside_alone(changes, reason):
    found = extract(pairs_table(**changes), "pairs", NAMES, 100)
    assert found.aside == [Aside(1, None, reason)]
    assert found.row == [0, 2, 3]
    assert [pair.document for pair in found.pairs] == ["t1", "t3", "t4"]


def test_long_texts_are_cut_and_counted():
    found = extract(pairs_table(text=["a" * 50, "b", "c", "d"]), "pairs", NAMES, 10)
    assert (found.pairs[0].document, found.texts_cut) == ("a" * 10, 1)


def test_nested_candidates_are_sorted_inside_their_rows():
    table = nested_table()
    found = extract(table, "nested", NAMES, 100)
    assert found.aside == [
        Aside(2, 0, "null_text"), Aside(3, None, "null_query"), Aside(4, None, "null_candidates")
    ]  # fmt: skip
    assert found.pairs_in == 5
    ranked = ranked_unit(table, found, scores(1, 2, 3), added(0.25, 0.5, 0.75), "nested", None)
    assert ranked.table.to_pylist() == [
        {
            "query_id": 1,
            "query": "p",
            "candidates": [
                {"doc_id": "2", "text": "y", "bm25": 0.1, "score": 0.5, "rank": 1},
                {"doc_id": "1", "text": "x", "bm25": 0.5, "score": 0.25, "rank": 2},
            ],
            "lang": "en",
        },
        {"query_id": 2, "query": "q", "candidates": [], "lang": "en"},
        {
            "query_id": 3,
            "query": "r",
            "candidates": [{"doc_id": "4", "text": "z", "bm25": 0.3, "score": 0.75, "rank": 1}],
            "lang": "en",
        },
    ]


def test_a_pair_without_a_score_is_left_out():
    table = pairs_table()
    found = extract(table, "pairs", NAMES, 100)
    raw = scores(1, np.nan, 2, 5)
    ranked = ranked_unit(table, found, raw, added(1, 0, 2, 5), "pairs", None)
    assert ranked.table["doc_id"].to_pylist() == [1, 3, 4]


def test_kept_columns_are_the_named_ones_and_the_result():
    table = nested_table()
    found = extract(table, "nested", NAMES, 100)
    ranked = ranked_unit(table, found, scores(1, 2, 3), added(1, 2, 3), "nested", 1)
    kept = keep_columns(ranked.table, ("query_id", "candidates.doc_id"), NAMES, {"score", "rank"})
    assert kept.to_pylist() == [
        {"query_id": 1, "candidates": [{"doc_id": "2", "score": 2.0, "rank": 1}]},
        {"query_id": 2, "candidates": []},
        {"query_id": 3, "candidates": [{"doc_id": "4", "score": 3.0, "rank": 1}]},
    ]


def test_a_document_that_a_query_has_twice_is_set_aside_where_copies_are_not_wanted():
    table = pairs_table(query_id=["a", "b", "a", "a"], doc_id=[1, 1, 1, None])
    assert extract(table, "pairs", NAMES, 100).aside == []
    assert extract(table, "pairs", NAMES, 100, copies=False).aside == [Aside(2, None, "duplicate")]
    kind = pa.list_(pa.struct([("doc_id", pa.string()), ("text", pa.string())]))
    lists = [[{"doc_id": d, "text": "t"} for d in ids] for ids in ("xyx", "x", "yy")]
    nested = pa.table(
        {"query_id": [1, 2, 3], "query": ["q"] * 3, "candidates": pa.array(lists, kind)}
    )
    found = extract(nested, "nested", NAMES, 100, copies=False)
    assert found.aside == [Aside(0, 2, "duplicate"), Aside(2, 1, "duplicate")]
