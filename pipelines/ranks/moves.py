"""How far ranks lie from the input's order, and which scores which ranks have. Pure; no texts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rerank_core import activate
from rerank_core.types import Float32s

Ints = npt.NDArray[np.int64]

# Classes of ranks, by the last of each; what is beyond has a class of its own.
RANK_CLASSES = (1, 3, 10, 100)
# Distances are counted by powers of two, from 1 place to 1,024 and more, down and up.
_STEPS = 11


class InputOrder(NamedTuple):
    """The place of each pair among its query's in the input, from 1, and how many these are."""

    place: Ints
    of: Ints


def input_order(groups: Ints) -> InputOrder:
    """Return the order of entries in their group, as they come."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - starts[groups[order]] + 1
    return InputOrder(place, counts[groups])


def over_units(groups: Ints, unit: Ints, order: InputOrder) -> Ints:
    """Return the place of each entry in its group over all units; `order` is that in its unit.

    Entries come unit by unit. Some may be missing, but none of a group's entries in a unit are all.
    """
    by_group = np.argsort(groups, kind="stable")
    group, units = groups[by_group], unit[by_group]
    first = np.flatnonzero(np.r_[True, (np.diff(group) != 0) | (np.diff(units) != 0)])
    of = order.of[by_group][first]
    before = np.cumsum(of) - of
    in_group = np.flatnonzero(np.r_[True, np.diff(group[first]) != 0])
    before -= np.repeat(before[in_group], np.diff(np.r_[in_group, len(first)]))
    place = np.empty(len(groups), np.int64)
    place[by_group] = np.repeat(before, np.diff(np.r_[first, len(groups)]))
    return place + order.place


def moves(place: Ints, ranks: npt.NDArray[np.integer], raw: Float32s) -> dict[str, list[int]]:
    """Return counts of how many places up each pair came, and of sigmoid scores by rank.

    `moves` counts by powers of two, from far down by none to far up; `rank_scores` has 20 equal
    steps of the score for each class of ranks, one class after the other.
    """
    up = place - ranks
    steps = np.minimum(np.log2(np.maximum(np.abs(up), 1)).astype(np.int64) + 1, _STEPS)
    shown = np.minimum(activate(raw, "sigmoid") * 20, 19).astype(np.int64)
    classes = np.searchsorted(RANK_CLASSES, ranks)
    return {
        "moves": np.bincount(np.sign(up) * steps + _STEPS, minlength=2 * _STEPS + 1).tolist(),
        "rank_scores": np.bincount(
            classes * 20 + shown, minlength=20 * (len(RANK_CLASSES) + 1)
        ).tolist(),
    }
