"""Attention of a quantised body, in float32, head by head. It does not know products of bytes."""

from __future__ import annotations

import numpy as np

from rerank_core.scorers.int8.compiled import LANES, compiled, start_of
from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.tiles import narrow_tile, wide_tile
from rerank_core.scorers.int8.vectors import fma, power_of_two, rint, row_max, row_sum

_TILE, _WIDTH, _NARROW = SHAPE.rows, SHAPE.width, SHAPE.width // 2
_F = np.float32


@compiled
def _exp(x):
    """exp of x <= 0, to 2 units in the last place (Cephes' polynomial)."""
    n = rint((max(x, _F(-87.0)) * _F(1.44269504),))
    r = fma((n, _F(-0.693359375), max(x, _F(-87.0))))
    r = fma((n, _F(2.12194440e-4), r))
    p = fma((_F(1.9875691500e-4), r, _F(1.3981999507e-3)))
    p = fma((p, r, _F(8.3334519073e-3)))
    p = fma((p, r, _F(4.1665795894e-2)))
    p = fma((p, r, _F(1.6666665459e-1)))
    p = fma((p, r, _F(5.0000001201e-1)))
    p = fma((p, r * r, r + _F(1.0)))
    return p * power_of_two((n,))


@compiled
def _lay_out(asked, known, pair, shape, room):
    """Copy a pair's queries, keys and values, head by head; keys with a token a column."""
    size, places, (low, high) = shape
    queries, keys, values = room
    scale = _F(1.0) / np.sqrt(_F(size))
    rows, bounds = known
    for token in range(bounds[pair + 1] - bounds[pair]):
        line = rows[bounds[pair] + token]
        for head in range(low, high):
            key = line[places[1] + head * size : places[1] + head * size + size]
            value = line[places[2] + head * size : places[2] + head * size + size]
            goal = values[head, token]
            for at in range(size):
                keys[head, at, token] = key[at]
            for at in range(size):
                goal[at] = value[at]
    rows, bounds = asked
    for token in range(bounds[pair + 1] - bounds[pair]):
        line = rows[bounds[pair] + token]
        for head in range(low, high):
            query = line[places[0] + head * size : places[0] + head * size + size]
            goal = queries[head, token]
            for at in range(size):
                goal[at] = query[at] * scale


@compiled
def _attend_head(queries, keys, values, length, sizes, out):
    """Softmax attention of one head: out[:] = softmax(queries @ keys) @ values.

    `out` has as many rows as are asked for; all else may have more, and wider ones.
    """
    size, weights, seen = sizes
    goal, line = start_of(weights), weights.strides[0]
    for first in range(0, len(out), _TILE):
        left = start_of(queries) + first * queries.strides[0]
        for at in range(0, length, _WIDTH):
            right, target = start_of(keys) + 4 * at, goal + 4 * at
            part = (left, queries.strides[0], right, keys.strides[0], size, target, line)
            if length - at > _NARROW:
                wide_tile(part)
            else:
                narrow_tile(part)
        count = min(_TILE, len(out) - first)
        for place in range(count):
            _soften(weights[place], length)
        for at in range(0, size, _NARROW):
            right, target = start_of(values) + 4 * at, start_of(seen) + 4 * at
            narrow_tile((goal, line, right, values.strides[0], length, target, seen.strides[0]))
        for place in range(count):
            row, found = out[first + place], seen[place]
            for at in range(size):
                row[at] = found[at]


@compiled
def attend(asked, known, shape, units, out):
    """Attend for the (pair, head) couples `units`: (low, high) of pair * heads + head.

    `known`: rows with keys and values, and bounds: pair p has the rows bounds[p] to bounds[p + 1].
    `asked`: likewise its queries. `shape`: heads, numbers a head, first columns of all three.
    """
    heads, size, places = shape
    low, high = units
    longest, most = 0, 0
    for pair in range(low // heads, (high - 1) // heads + 1):
        longest = max(longest, known[1][pair + 1] - known[1][pair])
        most = max(most, asked[1][pair + 1] - asked[1][pair])
    width, broad = -(-longest // _WIDTH) * _WIDTH, -(-size // _NARROW) * _NARROW
    queries = np.empty((heads, most + _TILE, size), np.float32)
    keys = np.empty((heads, size, width), np.float32)
    values = np.empty((heads, longest, broad), np.float32)
    sizes = size, np.empty((_TILE, width), np.float32), np.empty((_TILE, broad), np.float32)
    while low < high:
        pair = low // heads
        mine = low - pair * heads, min(heads, high - pair * heads)
        _lay_out(asked, known, pair, (size, places, mine), (queries, keys, values))
        length = known[1][pair + 1] - known[1][pair]
        begin, end = asked[1][pair], asked[1][pair + 1]
        for head in range(mine[0], mine[1]):
            part = out[begin:end, head * size : head * size + size]
            _attend_head(queries[head], keys[head], values[head], length, sizes, part)
        low += mine[1] - mine[0]


@compiled
def _soften(row, length):
    """Softmax of the first `length`."""
    whole = length // LANES
    largest, total = row[0], _F(0.0)
    if whole > 0:
        largest = max(row_max((start_of(row), whole)), largest)
    for at in range(whole * LANES, length):
        largest = max(row[at], largest)
    for at in range(length):
        row[at] = _exp(row[at] - largest)
    if whole > 0:
        total = row_sum((start_of(row), whole))
    for at in range(whole * LANES, length):
        total += row[at]
    share = _F(1.0) / total
    for at in range(length):
        row[at] *= share
