import os
import sys

import pyarrow as pa
import pytest

pytest.importorskip("sklearn")

from tools.demo.candidates import SCHEMA, propose, terms
from tools.demo.documents import collect_documents
from tools.demo.questions import read_questions
from tools.demo.table import answer_rank, climb, examples, largest_rise, mrr, recall_at, table

QUESTIONS = [
    {"id": "en-1", "language": "en", "question": "trim it", "answers": ["str.strip"]},
    {"id": "en-2", "language": "en", "question": "sort it", "answers": ["sorted", "list.sort"]},
    {"id": "zh-1", "language": "zh", "question": "排序 list", "answers": ["list.sort"]},
    {"id": "zh-2", "language": "zh", "question": "没有", "answers": ["nowhere"]},
]
ANSWERS = {question["id"]: question["answers"] for question in QUESTIONS}
BEFORE = {
    "en-1": ["a", "b", "str.strip", "c"],
    "en-2": ["sorted", "a", "b"],
    "zh-1": ["a", "list.sort", "b"],
}
AFTER = {
    "en-1": ["str.strip", "a", "c", "b"],
    "en-2": ["a", "sorted", "b"],
    "zh-1": ["a", "list.sort", "b"],
}


@pytest.fixture(scope="module")
def documents():
    return collect_documents()


def test_the_best_of_several_answers_counts():
    assert answer_rank(["a", "list.sort", "sorted"], ["sorted", "list.sort"]) == 2
    assert answer_rank(["a"], ["sorted"]) is None


def test_mrr_counts_missed_and_deep_answers_as_nothing():
    assert mrr(BEFORE, ANSWERS) == pytest.approx((1 / 3 + 1 + 1 / 2) / 4)
    assert mrr(BEFORE, ANSWERS, depth=2) == pytest.approx((1 + 1 / 2) / 4)


def test_recall_is_the_share_of_questions_with_an_answer_in_reach():
    assert recall_at(BEFORE, ANSWERS) == 0.75
    assert recall_at(BEFORE, ANSWERS, depth=1) == 0.25


def test_climb_leaves_out_what_was_never_proposed():
    assert climb(BEFORE, AFTER, ANSWERS) == {"en-1": 2, "en-2": -1, "zh-1": 0}


def test_the_largest_rise_tells_how_wrong_an_order_is():
    assert largest_rise([3.0, 2.0, 2.0, -1.0]) == 0
    assert largest_rise([3.0, 1.0, 2.0, 1.5, 2.5]) == 1.5


def test_the_table_has_a_line_per_language_and_one_for_all():
    rows = [line.replace("->", " ").split() for line in table(QUESTIONS, BEFORE, AFTER).split("\n")]
    assert rows[2:] == [
        ["English", "2", "1.000", "0.667", "0.750", "1", "1", "0", "0"],
        ["Chinese", "2", "0.500", "0.250", "0.250", "0", "0", "1", "1"],
        ["all", "4", "0.750", "0.458", "0.500", "1", "1", "1", "1"],
    ]


def test_examples_show_a_rise_and_a_fall():
    first, second = examples(QUESTIONS, BEFORE, AFTER).split("\n\n")
    assert first.splitlines() == [
        "trim it",
        "    answer: str.strip (rank 3 -> 1)",
        "    1.  a             [str.strip]",
        "    2.  b              a",
        "    3. [str.strip]     c",
    ]
    assert second.startswith("sort it\n    answer: sorted, list.sort (rank 1 -> 2)\n")


def test_terms_split_names_and_pair_chinese_characters():
    assert terms("readHTTPFile_now 字符串") == [
        *("read", "http", "file", "now"),
        *("read http", "http file", "file now"),
        *("字符", "符串"),
    ]


def test_documents_are_named_as_people_know_them(documents):
    assert {"str.strip", "asyncio.gather", "os.path.getmtime", "json", "zip"} <= documents.keys()
    assert documents["shutil.which"].startswith("shutil.which(cmd, mode=1, path=None)\nGiven a ")
    assert list(documents) == sorted(documents)


def test_documents_hold_nothing_of_this_machine(documents):
    signatures = "\n".join(text.split("\n")[0] for text in documents.values())
    assert not [told for told in (os.environ["PATH"], sys.prefix, " at 0x") if told in signatures]


def test_every_question_has_an_answer_among_the_documents(documents):
    questions = read_questions()
    assert [q["id"] for q in questions if documents.keys().isdisjoint(q["answers"])] == []
    assert len({q["id"] for q in questions}) == len({q["question"] for q in questions}) == 74


def test_the_first_stage_proposes_the_nearest_first_and_never_the_unrelated():
    found = propose({"a": "blue sky", "b": "a red apple", "c": "apple"}, [_ask("red apple")])
    assert found.select(
        ["query_id", "query", "doc_id", "text", "first_stage_rank"]
    ).to_pylist() == [
        {
            "query_id": "q",
            "query": "red apple",
            "doc_id": doc_id,
            "text": text,
            "first_stage_rank": rank,
        }
        for rank, (doc_id, text) in enumerate([("b", "a red apple"), ("c", "apple")], start=1)
    ]


def test_a_question_without_a_common_term_has_no_candidates():
    assert propose({"a": "blue sky"}, [_ask("红苹果")]).equals(pa.Table.from_pylist([], SCHEMA))


def _ask(text):
    return {"id": "q", "language": "en", "question": text, "answers": []}
