"""The rate is learned from passes that say something, and bounds the next ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.batcher.pass_rate import PassRate


def rate_after(*passes):
    rate = PassRate(0.1)
    for tokens, seconds in passes:
        rate.record(tokens, seconds)
    return rate


def test_before_the_first_pass_nothing_is_known_and_the_token_bound_holds():
    assert (rate_after().tokens_per_s, rate_after().pass_tokens(65_536)) == (None, 65_536)


def test_a_pass_holds_what_takes_its_time_and_never_more_than_the_bound():
    rate = rate_after((50_000, 1.0))
    assert rate.tokens_per_s == pytest.approx(50_000)
    assert rate.pass_tokens(65_536) == pytest.approx(5_000)
    assert rate.pass_tokens(2_048) == 2_048


def test_a_short_pass_does_not_make_the_scorer_look_slow():
    assert rate_after((50_000, 1.0), (8, 0.01)).tokens_per_s == pytest.approx(50_000)


def test_a_scorer_that_got_slower_is_found_out_by_a_long_pass():
    assert rate_after((50_000, 1.0), (10_000, 1.0)).tokens_per_s == pytest.approx(16_667, rel=1e-3)


def test_cached_pairs_blow_the_rate_up_until_one_real_pass():
    cached = rate_after((50_000, 1.0), *[(1_000, 1e-5)] * 20)
    assert cached.tokens_per_s > 10_000_000
    cached.record(60_000, 1.2)
    assert cached.tokens_per_s == pytest.approx(100_000, rel=0.02)


def test_a_pass_without_time_or_tokens_says_nothing():
    assert rate_after((0, 1.0), (5, 0.0)).tokens_per_s is None


@given(st.integers(1, 100), st.integers(100, 10**6), st.floats(0, 0.05))
def test_from_a_first_tiny_pass_it_finds_its_size_soon(first, speed, launch_s):
    rate = PassRate(0.1)
    tokens = first
    for _ in range(60):
        rate.record(tokens, launch_s + tokens / speed)
        tokens = max(1, round(rate.pass_tokens(10**9)))
    wanted = (0.1 - launch_s) * speed  # what fits 0.1 s beside the launch
    assert 0.8 * wanted - 1 <= tokens <= 1.25 * wanted + 1  # a pass has whole tokens
