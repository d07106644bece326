"""A cascade: the large model's scores for the best, everything else below them, in order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import (
    Calibration,
    Candidate,
    PairScores,
    QueryDocumentPair,
    Reranker,
    RerankRequest,
    ScorerConfig,
    load_scorer,
)
from rerank_core.cascade import CascadeScorer


class Fixed:
    """A scorer whose score is a function of the document."""

    info = load_scorer(ScorerConfig(model="lexical")).info

    def __init__(self, score, failing=()):
        self.of, self.failing, self.asked = score, failing, []

    def score(self, pairs):
        self.asked += [pair.document for pair in pairs]
        errors = {i: "broken" for i, p in enumerate(pairs) if p.document in self.failing}
        raw = np.array(
            [np.nan if i in errors else self.of(p.document) for i, p in enumerate(pairs)],
            dtype=np.float32,
        )
        size = len(pairs)
        return PairScores(raw, np.ones(size, np.int32), np.zeros(size, np.bool_), errors)

    def warm_up(self):
        self.asked.append("warm")


def pairs(*numbers, query="q"):
    return [QueryDocumentPair(query, str(number)) for number in numbers]


def test_only_the_best_are_scored_by_the_large_model_and_come_first():
    small, large = Fixed(float), Fixed(lambda document: -float(document))
    scores = CascadeScorer(small, large, 2).score(pairs(1, 5, 3, 4))
    assert sorted(large.asked) == ["4", "5"]
    assert np.argsort(-scores.raw).tolist() == [3, 1, 2, 0]
    assert scores.raw[[1, 3]].tolist() == [-5, -4]
    assert scores.tokens.tolist() == [1, 2, 1, 2]


def test_a_query_with_few_candidates_skips_the_small_model():
    small, large = Fixed(float), Fixed(float)
    scores = CascadeScorer(small, large, 2).score(pairs(1, 5, query="a") + pairs(3, 2, 1))
    assert small.asked == ["3", "2", "1"]
    assert scores.raw[:2].tolist() == [1, 5]


def test_what_the_small_model_fails_on_is_kept_and_the_large_models_failures_are_told():
    small, large = Fixed(float, failing={"1"}), Fixed(float, failing={"5"})
    scores = CascadeScorer(small, large, 2).score(pairs(1, 5, 3))
    assert scores.errors == {1: "broken"}
    assert scores.raw[0] == 1
    assert scores.raw[2] < scores.raw[0]


def test_warming_up_warms_both():
    small, large = Fixed(float), Fixed(float)
    CascadeScorer(small, large, 2).warm_up()
    assert (small.asked, large.asked) == (["warm"], ["warm"])


@given(st.lists(st.integers(-1000, 1000), max_size=30), st.integers(1, 10))
def test_with_the_same_model_twice_a_cascade_keeps_the_order(numbers, keep):
    scores = CascadeScorer(Fixed(float), Fixed(float), keep).score(pairs(*numbers))
    assert np.isfinite(scores.raw).all()
    order = np.argsort(-np.array(numbers, dtype=np.float32), kind="stable")
    assert [numbers[i] for i in np.argsort(-scores.raw, kind="stable")] == [
        numbers[i] for i in order
    ]


def test_it_is_built_from_the_config_and_is_part_of_the_fingerprint():
    plain = ScorerConfig(model="lexical")
    config = ScorerConfig(model="lexical", first_stage={"model": "lexical", "keep": 3})
    assert isinstance(load_scorer(config), CascadeScorer)
    assert config.fingerprint() != plain.fingerprint()


def test_nothing_in_nothing_out():
    assert len(CascadeScorer(Fixed(float), Fixed(float), 2).score([])) == 0


def test_keeping_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        CascadeScorer(Fixed(float), Fixed(float), 0)


def test_everything_the_small_model_fails_on_goes_to_the_large_one_beyond_keep_too():
    small, large = Fixed(float, failing={"1", "2", "3"}), Fixed(float)
    scores = CascadeScorer(small, large, 2).score(pairs(1, 2, 3, 9, 8))
    assert sorted(large.asked) == ["1", "2", "3"]
    assert scores.raw.tolist() == [1, 2, 3, 0, -1]
    assert scores.errors == {}


def test_two_requests_with_the_same_text_keep_their_own_best():
    one = Reranker(CascadeScorer(Fixed(float), Fixed(float), 2))
    requests = [
        RerankRequest("q", tuple(Candidate(n, n) for n in numbers))
        for numbers in (("1", "2", "3"), ("7", "8", "9"))
    ]
    together = one.rerank(requests)
    assert together == [one.rerank([request])[0] for request in requests]
    assert [hit.first_stage_only for result in together for hit in result] == [False] * 2 + [
        True
    ] + [False] * 2 + [True]


def test_pairs_without_an_id_belong_to_their_querys_text():
    scores = CascadeScorer(Fixed(float), Fixed(float), 1).score(
        pairs(1, 2, query="a") + pairs(4, 3, query="b") + pairs(5, query="a")
    )
    assert scores.first_stage_only == {0, 1, 3}


def test_an_id_joins_pairs_whatever_their_text_and_parts_equal_texts():
    asked = [
        replace(pair, query_id=name) for pair, name in zip(pairs(1, 2, 3, 4), "xyxy", strict=True)
    ]
    assert CascadeScorer(Fixed(float), Fixed(float), 1).score(asked).first_stage_only == {0, 1}


def test_what_only_the_first_stage_saw_passes_no_threshold_and_has_no_probability():
    large = Fixed(lambda document: 8.0)
    reranker = Reranker(CascadeScorer(Fixed(float), large, 2), Calibration(1.0, 0.0, "f", 2))
    hits = list(reranker.rank("q", ["1", "2", "3"]))
    assert [hit.index for hit in hits] == [1, 2, 0]
    assert hits[2].score > 0.99
    assert [hit.calibrated_score is None for hit in hits] == [False, False, True]
    kept = reranker.rank("q", ["1", "2", "3"], score_threshold=0.5)
    assert [hit.index for hit in kept] == [1, 2]
    assert kept.failed == ()


def test_its_scores_carry_the_fingerprint_of_the_whole():
    config = ScorerConfig(model="lexical", first_stage={"model": "lexical", "keep": 1})
    scorer = load_scorer(config)
    assert scorer.score(pairs("a", "b")).fingerprint == scorer.info.fingerprint
