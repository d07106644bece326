from collections.abc import Sequence

import numpy as np
import pytest

from rerank_core import (
    Candidate,
    FailedCandidate,
    InvalidRequest,
    PairScores,
    QueryDocumentPair,
    RankedCandidate,
    Reranker,
    RerankRequest,
    RerankResult,
    ScorerConfig,
    ScorerInfo,
    load_scorer,
)


class LengthScorer:
    """Raw score: length of the document; documents called `bad` cannot be scored."""

    info = ScorerInfo("fake", None, "fake", "cpu", "float32", 512, 512, "identity", "0" * 16)

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        self.calls.append(len(pairs))
        errors = {i: "bad text" for i, pair in enumerate(pairs) if pair.document == "bad"}
        raw = np.array([len(pair.document) for pair in pairs], np.float32)
        raw[list(errors)] = np.nan
        tokens = np.array([len(pair.document) + 3 for pair in pairs], np.int32)
        return PairScores(raw, tokens, tokens > 8, errors)


def request(query: str, *texts: str, top_k: int | None = None) -> RerankRequest:
    candidates = tuple(Candidate(f"d{i}", text) for i, text in enumerate(texts))
    return RerankRequest(query, candidates, top_k)


def test_a_result_holds_everything_in_rank_order():
    result = Reranker(LengthScorer()).rerank([request("q", "aa", "aaaaaa", "aaa", top_k=2)])
    assert result == [
        RerankResult(
            ranked=(
                RankedCandidate(1, "d1", 1, 6.0, 6.0, 9, True),
                RankedCandidate(2, "d2", 2, 3.0, 3.0, 6, False),
            ),
            failed=(),
            tokens=20,
        )
    ]


def test_requests_are_scored_together_and_answered_in_order():
    scorer = LengthScorer()
    results = Reranker(scorer).rerank([request("q", "a", "aa"), request("r"), request("s", "aaa")])
    assert scorer.calls == [3]
    assert [[hit.doc_id for hit in result.ranked] for result in results] == [
        ["d1", "d0"],
        [],
        ["d0"],
    ]


def test_a_candidate_that_cannot_be_scored_fails_alone():
    first, second = Reranker(LengthScorer()).rerank(
        [request("q", "aa", "bad", "a"), request("r", "bad", "a")]
    )
    assert [hit.index for hit in first.ranked] == [0, 2]
    assert first.failed == (FailedCandidate(1, "d1", "bad text"),)
    assert [hit.index for hit in second.ranked] == [1]
    assert second.failed == (FailedCandidate(0, "d0", "bad text"),)


def test_equal_scores_keep_the_order_of_the_first_stage():
    (result,) = Reranker(LengthScorer()).rerank([request("q", "bb", "aa", "cc")])
    assert [hit.doc_id for hit in result.ranked] == ["d0", "d1", "d2"]


@pytest.mark.parametrize(
    ("bad", "param"), [(request(" \n", "a"), "query"), (request("q", "a", top_k=0), "top_k")]
)
def test_a_bad_request_is_refused_before_anything_is_scored(bad, param):
    scorer = LengthScorer()
    with pytest.raises(InvalidRequest) as caught:
        Reranker(scorer).rerank([bad])
    assert (caught.value.param, scorer.calls) == (param, [])


def test_the_shipped_fake_prefers_shared_words_in_both_languages():
    reranker = Reranker(load_scorer(ScorerConfig(model="lexical")))
    english, chinese = reranker.rerank(
        [request("red apple", "a green pear", "a red apple"), request("苹果", "香蕉", "红苹果")]
    )
    assert [english.ranked[0].index, chinese.ranked[0].index] == [1, 1]
