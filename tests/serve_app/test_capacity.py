"""The rules of admission and of sizes: pure, so every case is a line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app import capacity
from serve_app.capacity import Demand, UnderWay, few_have_time, least_loaded


@pytest.mark.parametrize(
    ("tokens_per_s", "unit"),
    [(0, 65_536), (50_000, 5_000), (7_000, 1_024), (5_000_000, 65_536)],
)
def test_a_unit_is_a_tenth_of_a_second_within_its_bounds(tokens_per_s, unit):
    assert capacity.unit_tokens(tokens_per_s, 65_536) == unit


def test_a_scorer_of_small_batches_gets_no_larger_units():
    assert capacity.unit_tokens(50_000, 512) == 512


def test_the_bound_is_the_rate_times_the_wait_and_never_below_the_least():
    assert capacity.most_tokens(100_000, 1.5, 16_384) == 150_000
    assert capacity.most_tokens(0, 1.5, 16_384) == 16_384


def test_a_request_larger_than_half_of_all_counts_as_half():
    assert [capacity.charge(cost, 1000) for cost in (400, 500, 9000)] == [400, 500, 500]


def test_what_others_have_under_way_takes_room_too():
    now = UnderWay(tokens=300, others=500, tokens_per_s=1000)
    assert capacity.over(200, now, 1000) == 0
    assert capacity.over(201, now, 1000) == 1


def few(cost, costs, *, others=0.0, rate=1000.0, left=30.0):
    now = UnderWay(sum(costs), others, rate)
    return few_have_time(cost, costs, now, time_left_s=left)


def test_a_few_requests_are_admitted_while_they_end_in_a_fifth_of_their_time():
    assert few(1000, [1000] * 5)
    assert not few(1001, [1001] * 5)


def test_a_short_deadline_admits_fewer():
    assert not few(1000, [1000] * 4, left=20.0)


def test_a_huge_request_keeps_no_small_one_out():
    """Replicas take turns: it delays the small one by the small one's size."""
    assert few(100, [500_000])


def test_other_gateways_work_is_ahead_of_it():
    assert few(1000, [], others=5000)
    assert not few(1000, [], others=5001)


def test_nobody_is_refused_for_a_rate_that_nobody_knows():
    assert few(10**9, [10**9], rate=0.0)


def test_demand_is_the_mean_of_the_window():
    demand = Demand(20)
    for second in range(40):
        demand.add(100, second + 0.25)
        demand.add(200, second + 0.75)
    assert demand.per_s(40.0) == 300
    assert demand.per_s(50.0) == 150
    assert demand.per_s(61.0) == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 10**6)), max_size=50))
@settings(deadline=None)
def test_demand_forgets_nothing_inside_its_window(asked):
    demand = Demand(20)
    for moment, tokens in sorted(asked):
        demand.add(tokens, moment)
    inside = sum(tokens for moment, tokens in asked if math.floor(moment) + 1 > 80)
    assert demand.per_s(100.0) == pytest.approx(inside / 20)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=16), st.integers(0, 99))
@settings(deadline=None)
def test_the_least_loaded_of_a_few_is_the_least_of_all(loads, start):
    assert loads[least_loaded(loads, start)] == min(loads)


def test_idle_replicas_get_equal_units_in_turn():
    loads, start, chosen = [0] * 8, 5, []
    for _ in range(16):
        place = least_loaded(loads, start)
        loads[place] += 1
        start = place + 1
        chosen.append(place)
    assert sorted(chosen) == sorted([*range(8), *range(8)])
    assert loads == [2] * 8


def test_among_many_it_looks_at_the_next_few_only():
    loads = [1] * 100
    loads[50] = 0
    assert least_loaded(loads, 0) == 0
    assert least_loaded(loads, 40) == 50
    assert least_loaded(loads, 95) == 95
