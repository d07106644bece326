import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import PairScores, QueryDocumentPair
from serve_app.work_units import cut_units, estimate_tokens, merge_scores


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


def test_estimates_stop_at_the_callers_own_limits():
    pair = QueryDocumentPair("q" * 400, "d" * 4000, 10, 50)
    assert estimate_tokens([pair], 512) == [64]


def test_merging_concatenates_and_shifts_indices():
    def part(raw, errors, passages):
        n = len(raw)
        tokens, truncated = np.full(n, 3, np.int32), np.zeros(n, bool)
        return PairScores(np.array(raw, np.float32), tokens, truncated, errors, passages)

    first = part([1.0, 2.0], {}, {1: (0, 5)})
    merged = merge_scores([first, part([float("nan"), 3.0], {0: "why"}, {1: (7, 9)})])
    assert np.array_equal(merged.raw, np.array([1, 2, np.nan, 3], np.float32), equal_nan=True)
    assert merged.tokens.tolist() == [3, 3, 3, 3]
    assert (dict(merged.errors), dict(merged.passages)) == ({2: "why"}, {1: (0, 5), 3: (7, 9)})
