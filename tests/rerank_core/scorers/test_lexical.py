"""The fake that we ship: what it scores is the share of the query's words that a document has."""

import math

import numpy as np
import pytest

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer


@pytest.mark.parametrize(
    ("document", "share", "words"),
    [
        ("A red apple.", 0.999, 3),
        ("RED paint", 0.5, 2),
        ("a blue car", 0.001, 3),
        ("", 0.001, 0),
        ("red " * 40, 0.5, 40),
    ],
)
def test_a_score_is_the_share_of_words_and_a_little_for_shortness(document, share, words):
    scores = load_scorer(ScorerConfig(model="lexical")).score(
        [QueryDocumentPair("red apple", document)]
    )
    expected = math.log(share / (1 - share)) - 0.01 * math.log1p(words)
    np.testing.assert_allclose(scores.raw, [expected], rtol=0, atol=1e-5)
    assert (scores.tokens.tolist(), scores.errors) == ([2 + words], {})


def test_a_chinese_word_is_as_many_words_as_it_has_characters():
    pair = QueryDocumentPair("首都", "北京是首都。")
    assert load_scorer(ScorerConfig(model="lexical")).score([pair]).tokens.tolist() == [2 + 5]


def test_words_are_counted_alike_whatever_limits_stand_beside():
    scorer = load_scorer(ScorerConfig(model="lexical"))
    cut = QueryDocumentPair("red apple", "a red apple", max_query_tokens=1)
    alone, together = scorer.score([cut]), scorer.score([cut, QueryDocumentPair("red apple", "a")])
    assert (alone.raw[0], alone.tokens[0]) == (together.raw[0], together.tokens[0])
    assert alone.tokens.tolist() == [1 + 3]
