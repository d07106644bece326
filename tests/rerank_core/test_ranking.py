import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import InvalidRequest, ScoringFailed, activate, rank_scores

scores = st.lists(st.floats(-50, 50, width=32), max_size=60)


def test_best_score_comes_first_and_ties_keep_input_order():
    assert rank_scores([1.0, 3.0, 1.0, 3.0, 2.0]) == [1, 3, 4, 0, 2]


def test_top_k_above_the_count_means_all():
    assert rank_scores([1.0, 2.0], top_k=10) == [1, 0]


def test_nothing_to_rank_is_an_empty_ranking():
    assert rank_scores([], top_k=3) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused(bad):
    with pytest.raises(ScoringFailed, match="not finite"):
        rank_scores([1.0, bad])


def test_top_k_below_one_is_refused_and_names_its_field():
    with pytest.raises(InvalidRequest, match="at least 1") as caught:
        rank_scores([1.0], top_k=0)
    assert caught.value.param == "top_k"


@given(scores, st.integers(1, 70))
def test_top_k_is_a_prefix_of_the_whole_ranking(values, top_k):
    assert rank_scores(values, top_k) == rank_scores(values)[:top_k]


@given(scores)
def test_every_index_is_ranked_once_in_descending_order_ties_by_index(values):
    order = rank_scores(values)
    assert order == sorted(range(len(values)), key=lambda i: (-values[i], i))


def test_sigmoid_neither_overflows_nor_leaves_zero_to_one():
    out = activate(np.array([-200, -1, 0, 1, 200], np.float32), "sigmoid")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [0, 0.26894143, 0.5, 0.7310586, 1], atol=1e-7)


def test_identity_changes_nothing():
    raw = np.array([-2.5, 7], np.float32)
    assert activate(raw, "identity") is raw


def test_an_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match="use sigmoid or identity"):
        activate(np.zeros(1, np.float32), "softmax")
