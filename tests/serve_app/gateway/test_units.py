from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core import QueryDocumentPair
from serve_app.gateway.units import cut_units, estimate_tokens, share_out


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 2000))
def test_units_cover_every_pair_once_in_order_within_the_bound(costs, unit_tokens):
    runs = cut_units(costs, unit_tokens)
    assert [index for run in runs for index in run] == list(range(len(costs)))
    assert all(len(run) == 1 or sum(costs[i] for i in run) <= unit_tokens for run in runs)


def test_units_are_about_equal_instead_of_full_and_a_rest():
    assert cut_units([10] * 12, 100) == [range(0, 6), range(6, 12)]
    assert cut_units([1000] * 10, 4096) == [range(0, 3), range(3, 7), range(7, 10)]


@settings(deadline=None)
@given(st.lists(st.integers(50, 100), min_size=2, max_size=400), st.integers(1000, 4000))
def test_units_are_as_few_as_they_can_be_and_none_is_a_rest(costs, unit_tokens):
    sums = [sum(costs[i] for i in run) for run in cut_units(costs, unit_tokens)]
    fewest = -(-sum(costs) // unit_tokens)
    # Pairs are whole: what one does not take of the last one, the next must.
    assert len(sums) <= 1 + fewest * unit_tokens / (unit_tokens - 100)
    assert max(sums) - min(sums) <= 200


def test_estimates_follow_bytes_and_stop_at_what_the_model_reads():
    pairs = [("ab", "c" * 38), ("ab", "中" * 14), ("ab", "x" * 10_000)]
    assert estimate_tokens([QueryDocumentPair(*pair) for pair in pairs], 512) == [14, 15, 512]


def test_estimates_stop_at_the_callers_own_limits():
    pair = QueryDocumentPair("q" * 400, "d" * 4000, 10, 50)
    assert estimate_tokens([pair], 512) == [64]


@given(st.integers(1, 60), st.integers(1, 20))
def test_pieces_are_shared_out_equally_and_each_once_in_order(pieces, calls):
    runs = [range(i, i + 1) for i in range(pieces)]
    shares = share_out(runs, calls)
    assert [run for share in shares for run in share] == runs
    assert len(shares) == min(pieces, calls)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
