"""The cache answers known pairs itself, is bounded, and never changes an answer."""

import numpy as np
import pytest

from rerank_core import PairScores, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.cache import CachedScorer


class Counting:
    """The lexical scorer, remembering what it was asked; fails on the document `bad`."""

    def __init__(self):
        self.inner = load_scorer(ScorerConfig(model="lexical"))
        self.info = self.inner.info
        self.asked = []

    def score(self, pairs):
        self.asked += [pair.document for pair in pairs]
        scores = self.inner.score(pairs)
        errors = {i: "broken" for i, pair in enumerate(pairs) if pair.document == "bad"}
        raw = scores.raw.copy()
        raw[list(errors)] = np.nan
        return PairScores(raw, scores.tokens, scores.truncated, errors)

    def warm_up(self):
        self.inner.warm_up()


def pairs(*documents, **limits):
    return [QueryDocumentPair("red fox", document, **limits) for document in documents]


def test_known_pairs_are_not_scored_again_and_answers_are_the_same():
    inner = Counting()
    cached = CachedScorer(inner, 10)
    wanted = pairs("a fox", "red", "a fox", "x")
    first, second = cached.score(wanted), cached.score(list(reversed(wanted)))
    plain = inner.inner.score(wanted)
    assert first.raw.tolist() == plain.raw.tolist() == second.raw.tolist()[::-1]
    assert first.tokens.tolist() == plain.tokens.tolist()
    assert inner.asked == ["a fox", "red", "x"]
    assert (cached.hits, cached.misses) == (4, 3)


def test_the_oldest_pairs_go_first():
    inner = Counting()
    cached = CachedScorer(inner, 2)
    for document in ("a", "b", "a", "c", "a", "b"):
        cached.score(pairs(document))
    assert inner.asked == ["a", "b", "c", "b"]
    assert len(cached) == 2


def test_a_failure_is_reported_and_not_remembered():
    inner = Counting()
    cached = CachedScorer(inner, 10)
    for _ in range(2):
        scores = cached.score(pairs("a fox", "bad"))
        assert scores.errors == {1: "broken"}
        assert np.isnan(scores.raw[1])
    assert inner.asked == ["a fox", "bad", "bad"]


def test_limits_belong_to_the_pair():
    cached = CachedScorer(Counting(), 10)
    cut = cached.score(pairs("one two red fox", max_document_tokens=2)).raw[0]
    assert cached.score(pairs("one two red fox")).raw[0] > cut


def test_query_and_document_do_not_run_together():
    cached = CachedScorer(Counting(), 10)
    cached.score([QueryDocumentPair("ab", "c"), QueryDocumentPair("a", "bc")])
    cached.score([QueryDocumentPair("b", "c", instruction="a"), QueryDocumentPair("", "abc")])
    assert len(cached) == 4


def test_it_is_built_from_the_config():
    assert isinstance(load_scorer(ScorerConfig(model="lexical", cache_pairs=5)), CachedScorer)


def test_a_cache_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        CachedScorer(Counting(), 0)


def test_a_score_does_not_belong_to_a_query_id_and_keeps_its_fingerprint():
    inner = Counting()
    cached = CachedScorer(inner, 10)
    for name in ("one", "two"):
        scores = cached.score(pairs("a fox", query_id=name))
        assert (scores.fingerprint, scores.first_stage_only) == (inner.info.fingerprint, set())
    assert inner.asked == ["a fox"]
