from collections.abc import Sequence

import numpy as np
import pytest

from rerank_core import (
    Candidate,
    FailedCandidate,
    InvalidRequest,
    ModelUnavailable,
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


def test_one_line_ranks_plain_texts():
    result = Reranker.load("lexical").rank("red apple", ["a green pear", "a red apple", "red"], 2)
    assert [(hit.rank, hit.index, hit.doc_id) for hit in result] == [(1, 1, "1"), (2, 2, "2")]
    assert list(result) == list(result.ranked)


def test_ranking_texts_is_reranking_their_candidates():
    reranker = Reranker.load("lexical")
    texts = ["a green pear", "a red apple", "red"]
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(texts))
    (whole,) = reranker.rerank([RerankRequest("red apple", candidates)])
    assert reranker.rank("red apple", texts) == reranker.rank("red apple", candidates) == whole


def test_what_cannot_be_scored_is_not_lost_and_candidates_keep_their_ids():
    result = Reranker(LengthScorer()).rank("q", ["aa", "bad", Candidate("mine", "a")])
    assert [hit.doc_id for hit in result] == ["0", "mine"]
    assert result.failed == (FailedCandidate(1, "1", "bad text"),)


def test_limits_reach_the_scorer_and_the_threshold_cuts():
    reranker = Reranker.load("lexical")
    texts = ["red " * 50 + "apple", "red apple"]
    cut = reranker.rank("red apple", texts, max_tokens_per_doc=1, max_tokens_per_query=1)
    assert [(hit.truncated, hit.tokens) for hit in cut] == [(True, 2), (True, 2)]
    kept = reranker.rank("apple", ["pear", "apple"], score_threshold=0.5)
    assert [hit.index for hit in kept] == [1]


@pytest.mark.parametrize(
    ("documents", "param"), [("red apple", "documents"), (["a", {"text": "b"}], "documents.1")]
)
def test_documents_that_are_no_texts_are_refused_by_name(documents, param):
    with pytest.raises(InvalidRequest) as caught:
        Reranker(LengthScorer()).rank("q", documents)
    assert caught.value.param == param


def test_settings_go_before_those_of_the_config_and_a_folder_may_be_a_path(tmp_path):
    config = ScorerConfig(model="lexical", max_length=64, activation="identity")
    info = Reranker.load(config, max_length=32).scorer.info
    assert (info.max_length, info.activation) == (32, "identity")
    with pytest.raises(ModelUnavailable, match="nothing-here"):
        Reranker.load(tmp_path / "nothing-here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dtyp": "float32"}, "dtyp: Extra inputs"), ({"max_length": 1}, "max_length: Input should")],
)
def test_a_wrong_setting_is_named_before_anything_is_loaded(settings, message):
    with pytest.raises(InvalidRequest, match=message):
        Reranker.load("lexical", **settings)


class Counted(dict):
    """A mapping that counts how often it is looked into."""

    looks = 0

    def __contains__(self, key):
        Counted.looks += 1
        return super().__contains__(key)

    def __iter__(self):
        for key in super().__iter__():
            Counted.looks += 1
            yield key


def looks_for(count):
    class AllFail:
        info = LengthScorer.info

        def score(self, pairs):
            errors = Counted(dict.fromkeys(range(len(pairs)), "bad"))
            return PairScores(
                np.full(len(pairs), np.nan, np.float32),
                np.ones(len(pairs), np.int32),
                np.zeros(len(pairs), np.bool_),
                errors,
            )

    Counted.looks = 0
    Reranker(AllFail()).rerank([request("q", "a")] * count)
    return Counted.looks


def test_many_requests_cost_time_linear_in_their_number():
    assert 0 < looks_for(400) == 10 * looks_for(40)


@pytest.mark.seconds
def test_a_limit_of_the_whole_pair_reaches_the_model():
    from rerank_core.reranker import check_request, pairs_of

    scorer = load_scorer(ScorerConfig(model="embedded", threads=1))
    texts = tuple(Candidate(str(i), "town " * n) for i, n in enumerate((3, 90)))
    whole, cut = (
        scorer.score(list(pairs_of(RerankRequest("town", texts, max_tokens_per_pair=limit))))
        for limit in (None, 32)
    )
    assert cut.tokens.tolist() == [whole.tokens[0], 32]
    assert cut.truncated.tolist() == [False, True]
    with pytest.raises(InvalidRequest, match="max_tokens_per_pair must be at least 1"):
        check_request(RerankRequest("town", texts, max_tokens_per_pair=0))
