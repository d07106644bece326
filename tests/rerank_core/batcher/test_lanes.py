"""Whose turn it is: in turn, as full as it goes, and nobody starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import DeadlineExceeded
from rerank_core.batcher.lanes import Lanes, Queue, Waiting

FOR_EVER = float("inf")


def waiting(cost, deadline=FOR_EVER, **options):
    return Waiting((), cost, deadline, 0.0, **options)


def lanes_of(**costs):
    """Return lanes by caller, and the units by name: `a0`, `a1`, `b0`."""
    lanes, names = Lanes(), {}
    for caller, units in costs.items():
        for number, cost in enumerate(units):
            unit = waiting(cost)
            names[unit.future] = f"{caller}{number}"
            lanes.add(caller, unit)
    return lanes, names


def passes(lanes, names, max_tokens):
    found = []
    while lanes:
        found.append([names[unit.future] for unit in lanes.take(max_tokens, 0.0)])
    return found


def test_callers_take_turns():
    lanes, names = lanes_of(a=[1, 1, 1], b=[1], c=[1, 1])
    assert passes(lanes, names, 2) == [["a0", "b0"], ["c0", "a1"], ["c1", "a2"]]
    assert (lanes.tokens, lanes.dropped) == (0, 0)


def test_a_pass_is_filled_from_lanes_behind_one_that_does_not_fit():
    lanes, names = lanes_of(a=[6], b=[6], c=[4], d=[4])
    assert passes(lanes, names, 10) == [["a0", "c0"], ["b0", "d0"]]


def test_a_unit_is_overtaken_in_one_pass_and_not_in_a_second():
    lanes, names = lanes_of(a=[6], b=[6], c=[6], d=[4, 4])
    assert passes(lanes, names, 10) == [["a0", "d0"], ["b0"], ["c0", "d1"]]


def test_who_was_looked_past_for_nothing_was_not_overtaken():
    lanes, names = lanes_of(a=[6], b=[6], c=[6])
    lanes.take(10, 0.0)
    small = waiting(4)
    names[small.future] = "d0"
    lanes.add("d", small)
    assert passes(lanes, names, 10) == [["b0", "d0"], ["c0"]]


def test_only_a_few_lanes_are_looked_past():
    lanes, names = lanes_of(first=[6], **{f"x{n}": [6] for n in range(8)}, last=[6], fits=[1])
    assert passes(lanes, names, 10)[0] == ["first0"]


def test_a_unit_larger_than_a_pass_goes_alone():
    lanes, names = lanes_of(a=[50], b=[1])
    assert passes(lanes, names, 10) == [["a0"], ["b0"]]


def test_a_first_unit_is_next_whoever_waits():
    lanes, names = lanes_of(a=[10, 10], b=[10])
    probe = waiting(1)
    names[probe.future] = "health"
    lanes.add("health", probe, first=True)
    assert passes(lanes, names, 10)[0] == ["health"]


def test_those_who_left_or_are_late_are_dropped_and_take_nobodys_turn():
    lanes, names = lanes_of(a=[1], b=[1], c=[9])
    late = waiting(9, deadline=5.0)
    lanes.add("late", late)
    for unit in list(names):
        if names[unit] == "a0":
            unit.cancel()
    assert [names[unit.future] for unit in lanes.take(10, 5.0)] == ["b0", "c0"]
    assert (len(lanes), lanes.tokens, lanes.dropped) == (0, 0, 2)
    with pytest.raises(DeadlineExceeded):
        late.future.result(0)


@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=20),
    st.integers(1, 20),
)
def test_every_unit_is_taken_once_within_the_budget_and_overtaken_at_most_once(callers, budget):
    lanes, names = lanes_of(**{f"c{n}-": costs for n, costs in enumerate(callers)})
    costs = {f"c{n}-{i}": c for n, units in enumerate(callers) for i, c in enumerate(units)}
    found = passes(lanes, names, budget)
    assert sorted(name for one in found for name in one) == sorted(costs)
    assert all(len(one) == 1 or sum(map(costs.get, one)) <= budget for one in found)
    # Heads of lanes: by the second pass that goes on without it, the first in line is taken.
    heads = [f"c{n}-0" for n in range(len(callers))]
    at = {name: number for number, one in enumerate(found) for name in one}
    assert all(at[head] <= 2 * place + 1 for place, head in enumerate(heads))


def queue_of(first=(), rest=()):
    """Return a queue of units of callers of their own, and their names: `f0`, `r0`."""
    queue, names = Queue(), {}
    for kind, costs in (("f", first), ("r", rest)):
        for number, cost in enumerate(costs):
            unit = waiting(cost, can_wait=kind == "r")
            names[unit.future] = f"{kind}{number}"
            queue.add(names[unit.future], unit)
    return queue, names


def test_who_can_wait_gets_what_others_leave_of_a_pass():
    queue, names = queue_of(first=[4, 4, 4], rest=[2, 2])
    assert (len(queue), queue.tokens) == (5, 16)
    assert passes(queue, names, 10) == [["f0", "f1", "r0"], ["f2", "r1"]]
    assert (len(queue), queue.tokens, queue.dropped) == (0, 0, 0)


def test_one_pass_in_eight_is_theirs_first_however_many_others_come():
    queue, names = queue_of(first=[10] * 20, rest=[10] * 2)
    found = [one for (one,) in passes(queue, names, 10)]
    assert (found.index("r0"), found.index("r1")) == (7, 15)


def test_who_has_left_is_taken_out_of_either_class():
    queue, _ = queue_of(first=[1], rest=[1])
    for lane in (queue._first, queue._rest):
        ((caller, (unit,)),) = lane._lanes.items()
        queue.remove(caller, unit)
    assert (bool(queue), queue.tokens, queue.dropped) == (False, 0, 2)


@given(
    st.lists(st.integers(1, 12), max_size=20),
    st.lists(st.integers(1, 12), max_size=20),
    st.integers(1, 20),
)
def test_every_unit_of_two_classes_is_taken_once_within_the_budget(first, rest, budget):
    queue, names = queue_of(first, rest)
    costs = {f"f{i}": cost for i, cost in enumerate(first)}
    costs |= {f"r{i}": cost for i, cost in enumerate(rest)}
    found = passes(queue, names, budget)
    assert sorted(name for one in found for name in one) == sorted(costs)
    assert all(len(one) == 1 or sum(map(costs.get, one)) <= budget for one in found)
