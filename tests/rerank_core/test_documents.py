"""Long documents: passages cover the text, overlap, end with sentences; the best counts."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import (
    Candidate,
    PairScores,
    QueryDocumentPair,
    Reranker,
    RerankRequest,
    ScorerConfig,
    load_scorer,
)
from rerank_core.documents import Passage, merge_passages, split_document
from tests.rerank_core.scorers.tiny_checkpoints import save_bert


def words(text):
    return [match.span() for match in re.finditer(r"\S+", text)]


def passages(text, size, overlap=0):
    return [text[p.start : p.end] for p in split_document(text, words(text), size, overlap)]


def test_a_passage_ends_with_a_sentence_where_one_ends_in_its_second_half():
    text = "One two three. Four five six seven. Eight nine ten."
    assert passages(text, 5) == ["One two three.", "Four five six seven.", "Eight nine ten."]


def test_without_a_sentence_end_a_passage_is_full():
    assert passages("a b c d e f g", 3) == ["a b c", "d e f", "g"]


def test_neighbours_share_the_overlap():
    assert passages("a b c d e f g", 4, overlap=2) == ["a b c d", "c d e f", "e f g"]


def test_chinese_sentences():
    text = "北京 是 首都。 上海 很 大。 杭州 有 湖。"
    assert passages(text, 4) == ["北京 是 首都。", "上海 很 大。", "杭州 有 湖。"]


@given(st.text(alphabet="ab. \n。!", max_size=200), st.integers(1, 30), st.integers(0, 40))
def test_passages_cover_every_token_and_never_exceed_their_size(text, size, overlap):
    tokens = words(text)
    spans = split_document(text, tokens, size, overlap)
    seen = set()
    for start, end, *own in spans:
        inside = [i for i, (first, last) in enumerate(tokens) if start <= first and last <= end]
        assert inside == list(range(*own))
        assert 1 <= len(inside) <= size
        seen.update(inside)
    assert seen == set(range(len(tokens)))
    assert spans == sorted(spans)


def lexical(**options):
    return load_scorer(ScorerConfig(model="lexical", max_length=24, **options))


LONG = "nothing here at all. " * 20 + "The red fox sleeps. " + "more of nothing. " * 20
PAIR = QueryDocumentPair("red fox", LONG)


def test_a_match_deep_inside_a_long_document_counts_only_when_it_is_split():
    cut = lexical().score([PAIR])
    split = lexical(long_documents="split", passage_overlap=4).score([PAIR])
    assert cut.truncated.tolist() == [True]
    assert split.truncated.tolist() == [False]
    assert split.raw[0] > cut.raw[0] + 5
    start, end = split.passages[0]
    assert "The red fox sleeps." in LONG[start:end]


def test_short_documents_are_scored_as_they_are():
    pairs = [QueryDocumentPair("red fox", "a red fox"), PAIR, QueryDocumentPair("red", "")]
    split = lexical(long_documents="split").score(pairs)
    plain = lexical().score(pairs)
    assert split.raw[[0, 2]].tolist() == plain.raw[[0, 2]].tolist()
    assert list(split.passages) == [1]


def test_passage_tokens_split_what_the_model_could_read_whole():
    scores = load_scorer(
        ScorerConfig(model="lexical", long_documents="split", passage_tokens=32)
    ).score([PAIR, QueryDocumentPair("red fox", "a red fox")])
    start, end = scores.passages[0]
    assert "The red fox sleeps." in LONG[start:end]
    assert end - start < 32 * 8
    assert list(scores.passages) == [0]


def test_the_mean_of_the_best_passages_lies_below_the_best():
    best, mean = (
        lexical(long_documents="split", passage_score=how).score([PAIR]).raw[0]
        for how in ("max", "mean_of_top")
    )
    assert mean < best


def test_what_lies_behind_the_last_passage_is_said_to_be_unread():
    scores = lexical(long_documents="split", max_passages=2).score([PAIR])
    assert scores.truncated.tolist() == [True]


def test_a_passage_that_could_not_be_scored_is_said_to_be_unread():
    nan = np.float32("nan")
    scores = PairScores(
        np.array([nan, 2, 1, nan], np.float32),
        np.array([5, 4, 3, 2], np.int32),
        np.zeros(4, np.bool_),
        {0: "not finite", 3: "no memory"},
    )
    spans = {0: [Passage(0, 9, 0, 2), Passage(7, 12, 1, 3)]}
    merged, owners = merge_passages(scores, [0, 0, 2, 3], spans, set(), "max")
    assert owners == [0, 2, 3]
    np.testing.assert_array_equal(merged.raw, [2, 1, nan])
    assert merged.tokens.tolist() == [9, 3, 2]
    assert merged.truncated.tolist() == [True, False, True]
    assert (merged.errors, merged.passages) == ({2: "no memory"}, {0: (7, 12)})


def test_letters_whose_lower_case_is_longer_split_as_any_others():
    """One Turkish document failed the whole call: offsets were of the lowered text."""
    turkish = "İstanbul İzmir İğdır " * 40
    pairs = [PAIR, QueryDocumentPair("İzmir", turkish)]
    scores = lexical(long_documents="split").score(pairs)
    assert scores.errors == {}
    start, end = scores.passages[1]
    assert turkish[start:end].startswith("İ")


def test_a_document_is_tokenised_once_however_many_queries_ask_it(tmp_path):
    scorer = load_scorer(
        ScorerConfig(
            model=str(save_bert(tmp_path)), device="cpu", self_check=False, long_documents="split"
        )
    )
    texts, seen = scorer.encoder.frame.texts, []
    inner = texts.backend

    class Watched:
        def encode_batch(self, asked, **options):
            seen.extend(asked)
            return inner.encode_batch(asked, **options)

        def encode_batch_fast(self, asked, **options):
            seen.extend(asked)
            return inner.encode_batch_fast(asked, **options)

    texts.backend = Watched()
    document = "the old town and the river. " * 40
    scores = scorer.score([QueryDocumentPair(query, document) for query in ("who", "what", "how")])
    assert seen.count(document) == 1
    assert list(scores.passages) == [0, 1, 2]


def test_a_passage_is_what_its_own_text_would_be(tmp_path):
    options = {"model": str(save_bert(tmp_path)), "device": "cpu", "self_check": False}
    document = "the old town and the river. " * 40
    split = load_scorer(ScorerConfig(**options, long_documents="split"))
    scores = split.score([QueryDocumentPair("who", document)])
    start, end = scores.passages[0]
    alone = load_scorer(ScorerConfig(**options)).score(
        [QueryDocumentPair("who", document[start:end])]
    )
    assert scores.raw[0] == pytest.approx(alone.raw[0], abs=1e-5)


def test_the_passage_reaches_the_ranking():
    reranker = Reranker(lexical(long_documents="split"))
    request = RerankRequest("red fox", (Candidate("a", "a cat"), Candidate("b", LONG)))
    (result,) = reranker.rerank([request])
    start, end = result.ranked[0].passage
    assert (result.ranked[0].doc_id, "red fox" in LONG[start:end]) == ("b", True)
    assert result.ranked[1].passage is None


def test_splitting_changes_the_fingerprint():
    plain = ScorerConfig(model="lexical")
    split = ScorerConfig(model="lexical", long_documents="split")
    assert plain.fingerprint() != split.fingerprint()


def test_a_passage_needs_a_size():
    with pytest.raises(ValueError, match="at least 1"):
        split_document("a b", words("a b"), 0, 0)


def test_limits_of_the_request_cut_query_and_document():
    scorer = lexical()
    scores = scorer.score(
        [
            QueryDocumentPair("red fox", "one two red fox"),
            QueryDocumentPair("red fox", "one two red fox", max_document_tokens=2),
            QueryDocumentPair("red fox", "one two red", max_query_tokens=1),
        ]
    )
    assert scores.tokens.tolist() == [6, 4, 4]
    assert scores.truncated.tolist() == [False, True, True]
    assert np.argsort(-scores.raw).tolist() == [2, 0, 1]


def test_what_lies_behind_the_tokenised_characters_is_said_to_be_unread(tmp_path):
    scorer = load_scorer(
        ScorerConfig(
            model=str(save_bert(tmp_path)), device="cpu", self_check=False, long_documents="split"
        )
    )
    gaps = (" " * 20).join(["river"] * 400)
    pairs = [QueryDocumentPair("town", gaps, max_document_tokens=n) for n in (300, 2000)]
    assert scorer.score(pairs).truncated.tolist() == [True, False]
    assert list(scorer.score(pairs).passages) == [0, 1]


def test_a_query_that_fills_the_model_leaves_room_to_split(tmp_path):
    folder = str(save_bert(tmp_path))
    scorer = load_scorer(
        ScorerConfig(
            model=folder,
            device="cpu",
            self_check=False,
            max_length=40,
            max_query_tokens=40,
            long_documents="split",
        )
    )
    scores = scorer.score([QueryDocumentPair("river " * 50, "town " * 5)])
    assert (scores.errors, scores.truncated.tolist()) == ({}, [True])


def test_a_limit_on_the_query_leaves_its_room_to_the_passages():
    pair = QueryDocumentPair("red fox " * 30, LONG, max_query_tokens=2)
    scores = lexical(long_documents="split").score([pair])
    start, end = scores.passages[0]
    assert "red fox sleeps" in LONG[start:end]
    assert end - start > 40
