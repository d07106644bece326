import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import PairScores, QueryDocumentPair, ScorerConfig, load_scorer
from serve_app.text_cuts import TextCutter
from serve_app.work_units import WorkUnit, cut_units, estimate_tokens, merge_scores


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 2000))
def test_units_cover_every_pair_once_in_order_within_the_bound(costs, unit_tokens):
    runs = cut_units(costs, unit_tokens)
    assert [index for run in runs for index in run] == list(range(len(costs)))
    assert all(len(run) == 1 or sum(costs[i] for i in run) <= unit_tokens for run in runs)


def test_units_are_about_equal_instead_of_full_and_a_rest():
    assert cut_units([10] * 12, 100) == [range(0, 6), range(6, 12)]


def test_estimates_follow_bytes_and_stop_at_what_the_model_reads():
    pairs = [("ab", "c" * 38), ("ab", "中" * 14), ("ab", "x" * 10_000)]
    assert estimate_tokens([QueryDocumentPair(*pair) for pair in pairs], 512) == [14, 15, 512]


def test_merging_concatenates_and_shifts_error_indices():
    def part(raw, errors):
        n = len(raw)
        return PairScores(
            np.array(raw, np.float32), np.full(n, 3, np.int32), np.zeros(n, bool), errors
        )

    merged = merge_scores([part([1.0, 2.0], {}), part([float("nan")], {0: "why"})])
    assert np.array_equal(merged.raw, np.array([1, 2, np.nan], np.float32), equal_nan=True)
    assert merged.tokens.tolist() == [3, 3, 3]
    assert dict(merged.errors) == {2: "why"}


def test_texts_are_cut_to_a_callers_limits_by_whole_characters_and_said_so():
    pool_scorer = load_scorer(ScorerConfig(model="lexical", max_length=100))
    pairs = (QueryDocumentPair("中文问题", "d"), QueryDocumentPair("中文问题", "word " * 50))
    unit = WorkUnit(pairs, 1, "caller", 1.0, max_query_tokens=2, max_document_tokens=5)
    kept, was_cut = asyncio.run(TextCutter(pool_scorer).cut(unit))
    assert kept == [("中文", "d"), ("中文", "word " * 4)]
    assert was_cut.tolist() == [True, True]


def test_limits_above_the_models_own_cost_nothing():
    cutter = TextCutter(load_scorer(ScorerConfig(model="lexical", max_length=100)))
    unit = WorkUnit((QueryDocumentPair("q", "d" * 1000),), 1, "caller", 1.0, None, 4096)
    assert asyncio.run(cutter.cut(unit)) == (unit.pairs, None)
