"""How far ranks lie from the input's order, over any number of units, and scores by rank."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ranks.moves import InputOrder, input_order, moves, over_units


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_the_order_over_units_is_that_of_the_whole_input_whatever_units_have_cut(rows, size):
    groups = np.array([group for group, _ in rows], np.int64)
    unit = np.arange(len(groups)) // size
    kept = np.array([keep for _, keep in rows], bool)
    places = [input_order(groups[unit == number]) for number in range(len(groups) // size + 1)]
    order = InputOrder(*(np.concatenate(values) for values in zip(*places, strict=True)))
    # What a unit keeps of a query is at least one row.
    for number in set(unit):
        for group in set(groups[unit == number]):
            kept[np.flatnonzero((unit == number) & (groups == group))[-1]] = True
    found = over_units(groups[kept], unit[kept], InputOrder(*(values[kept] for values in order)))
    expected = [int((groups[:row] == groups[row]).sum()) + 1 for row in range(len(groups))]
    assert found.tolist() == np.array(expected)[kept].tolist()


def test_places_are_counted_by_powers_of_two_and_scores_by_rank():
    place = np.array([1, 2, 4, 5000, 1, 9])
    ranks = np.array([1, 1, 1, 1, 5000, 11])
    counted = moves(place, ranks, np.array([0.0, 9, -9, 9, 0, 0], np.float32))
    # Far down, two down, none, one up, three up, far up.
    assert counted["moves"] == [1, *[0] * 8, 1, 0, 1, 1, 1, *[0] * 8, 1]
    first, hundred, beyond = (counted["rank_scores"][n * 20 : n * 20 + 20] for n in (0, 3, 4))
    assert (first[0], first[10], first[19], hundred[10], beyond[10]) == (1, 1, 2, 1, 1)
    assert sum(counted["rank_scores"]) == 6
