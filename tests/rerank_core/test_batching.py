from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import plan_batches
from rerank_core.batching import packed_tokens

lengths = st.lists(st.integers(0, 600), max_size=80)
budgets = st.integers(1, 2048)


def test_longest_pairs_go_first_and_similar_lengths_together():
    assert plan_batches([10, 100, 12, 90], 200) == [[1, 3], [2, 0]]


def test_packed_cost_is_the_sum_and_padded_cost_the_longest_times_count():
    assert plan_batches([60, 20, 20], 100, padded=False) == [[0, 1, 2]]
    assert plan_batches([60, 20, 20], 100, padded=True) == [[0], [1, 2]]


def test_a_pair_longer_than_the_budget_is_alone():
    assert plan_batches([500, 3, 4], 10) == [[0], [2, 1]]


def test_no_pairs_make_no_batches():
    assert plan_batches([], 10) == []


@given(lengths, budgets, st.booleans())
def test_every_pair_is_in_exactly_one_batch_within_the_budget(values, budget, padded):
    batches = plan_batches(values, budget, padded=padded)
    assert sorted(i for batch in batches for i in batch) == list(range(len(values)))
    for batch in batches:
        tokens = [values[i] for i in batch]
        cost = max(tokens) * len(tokens) if padded else sum(tokens)
        assert cost <= budget or len(batch) == 1


@pytest.mark.parametrize(("values", "budget"), [([1], 0), ([-1], 10)])
def test_impossible_arguments_are_refused(values, budget):
    with pytest.raises(ValueError, match=r"max_batch_tokens|negative"):
        plan_batches(values, budget)


def test_what_pairs_begin_with_is_paid_once_and_they_stay_together():
    lengths, prefixes = [30, 50, 40, 45], [("a", 20), ("b", 20), ("a", 20), ("b", 20)]
    assert plan_batches(lengths, 110, padded=False, prefixes=prefixes) == [[1, 3], [2, 0]]
    assert plan_batches(lengths, 120, padded=False, prefixes=prefixes) == [[1, 3, 2], [0]]
    assert packed_tokens(lengths, prefixes) == 165 - 40


@given(
    pairs=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 5)), max_size=80), budget=budgets
)
def test_every_pair_is_in_one_batch_whose_cost_and_keys_are_bounded(pairs, budget):
    # A prefix is known by its name, and a pair is no shorter.
    prefixes = [(name, 10 * name) for _, name in pairs]
    lengths = [own + 10 * name for own, name in pairs]
    batches = plan_batches(lengths, budget, padded=False, prefixes=prefixes)
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    for batch in batches:
        cost = packed_tokens([lengths[i] for i in batch], [prefixes[i] for i in batch])
        assert cost <= budget or len(batch) == 1
        assert sum(lengths[i] for i in batch) <= 4 * budget or len(batch) == 1
    order = [prefixes[i][0] for batch in batches for i in batch]
    assert sum(a != b for a, b in pairwise(order)) == max(0, len(set(order)) - 1)
