import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import plan_batches

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
