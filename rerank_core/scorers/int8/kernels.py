"""What a quantised body computes between attention and attention, row by row.

Every function gives a row the same bits whatever rows stand beside it, on every CPU.
"""

from __future__ import annotations

import numpy as np

from rerank_core.scorers.int8.compiled import BLOCK, LANES, compiled, start_of
from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.tiles import int_tile
from rerank_core.scorers.int8.vectors import fma, rint, row_max, row_min, row_squares, row_sum

# Neighbouring numbers of a row, and weights of an output, that share a scale.
GROUP = 128
_TILE, _WIDTH = SHAPE.rows, SHAPE.width
_F = np.float32


@compiled
def _gelu(x):
    """x * Phi(x), exactly as torch's "none": erf as a ratio of polynomials (Eigen's), to 3e-7."""
    y = min(max(x * _F(0.70710678), _F(-4.0)), _F(4.0))
    s = y * y
    a = fma((s, _F(-2.72614225801306e-10), _F(2.77068142495902e-08)))
    a = fma((a, s, _F(-2.10102402082508e-06)))
    a = fma((a, s, _F(-5.69250639462346e-05)))
    a = fma((a, s, _F(-7.34990630326855e-04)))
    a = fma((a, s, _F(-2.95459980854025e-03)))
    a = fma((a, s, _F(-1.60960333262415e-02)))
    b = fma((s, _F(-1.45660718464996e-05), _F(-2.13374055278905e-04)))
    b = fma((b, s, _F(-1.68282697438203e-03)))
    b = fma((b, s, _F(-7.37332916720468e-03)))
    b = fma((b, s, _F(-1.42647390514189e-02)))
    half = x * _F(0.5)
    return fma((half, y * a / b, half))


@compiled
def _room(size):
    """Return what `quantize` fills for a block of rows: bytes, and a zero and a scale a group."""
    groups = -(-size // GROUP)
    return np.empty((BLOCK, size + 3), np.uint8), np.empty((BLOCK, groups, 2), np.int32)


@compiled
def _quantize(rows, first, count, size, bytes_, marks):
    """Write `count` rows from `first` on as bytes, by groups: number ~ scale * (byte - zero)."""
    scales = marks.view(np.float32)
    for place in range(count):
        for group in range(-(-size // GROUP)):
            begin, end = group * GROUP, min(size, group * GROUP + GROUP)
            part, out = rows[first + place, begin:end], bytes_[place, begin:end]
            whole = len(part) // LANES
            low, high, total = _F(0.0), _F(0.0), _F(0.0)
            if whole > 0:
                total = row_sum((start_of(part), whole))
                low = min(row_min((start_of(part), whole)), low)
                high = max(row_max((start_of(part), whole)), high)
            for at in range(whole * LANES, len(part)):
                low, high = min(part[at], low), max(part[at], high)
                total += part[at]
            # A byte cannot be NaN; a scale can, and its row then is.
            scale = max((high - low) / _F(255.0), _F(1e-30)) + total * _F(0.0)
            inverse = _F(1.0) / scale
            zero = rint((-low * inverse,))
            marks[place, group, 0] = np.int32(zero)
            scales[place, group, 1] = scale
            for at in range(len(part)):
                value = rint((fma((part[at], inverse, zero)),))
                out[at] = np.uint8(np.int32(min(max(value, _F(0.0)), _F(255.0))))


@compiled
def _multiply(bytes_, marks, count, weights, out, first):
    """Write the float32 products of `count` quantised rows with `weights` from `first` on.

    `out` is as wide as the weights' panels; only those rows are touched.
    """
    panels, columns, size = weights[0], weights[1], weights[2]
    edge = np.empty((_TILE, _WIDTH), np.float32)
    stride = bytes_.strides[0]
    for panel in range(panels.shape[0]):
        column = 4 * panel * _WIDTH
        right, bias = start_of(panels[panel]), start_of(columns[panel])
        for row in range(0, count, _TILE):
            whole = row + _TILE <= count
            out_stride = out.strides[0] if whole else 4 * _WIDTH
            target = start_of(edge)
            if whole:
                target = start_of(out) + (first + row) * out_stride + column
            for group in range(-(-size // GROUP)):
                inputs = min(GROUP, size - group * GROUP)
                int_tile(
                    (
                        start_of(bytes_) + row * stride + group * GROUP,
                        stride,
                        right + group * GROUP * _WIDTH,
                        -(-inputs // 4),
                        bias + 4 * _WIDTH * (1 + 2 * group),
                        start_of(marks[row, group]),
                        marks.strides[0],
                        target if group > 0 else bias,
                        out_stride if group > 0 else 0,
                        target,
                        out_stride,
                    )
                )
            for line in range(0 if whole else count - row):
                for at in range(_WIDTH):
                    out[first + row + line, panel * _WIDTH + at] = edge[line, at]


@compiled
def project(rows, low, high, weights, out):
    """Multiply the rows `low` to `high`, quantised, into the same rows of `out`."""
    bytes_, marks = _room(weights[2])
    for first in range(low, high, BLOCK):
        count = min(BLOCK, high - first)
        _quantize(rows, first, count, weights[2], bytes_, marks)
        _multiply(bytes_, marks, count, weights, out, first)


@compiled
def _normalize(rows, count, others, first, norm, out):
    """LayerNorm of rows + others[first:] into out[first:]."""
    gain, shift, epsilon = norm
    size = len(gain)
    whole = size // LANES
    for place in range(count):
        row, other, target = rows[place], others[first + place], out[first + place]
        for at in range(size):
            row[at] += other[at]
        total, squares = _F(0.0), _F(0.0)
        if whole > 0:
            total = row_sum((start_of(row), whole))
        for at in range(whole * LANES, size):
            total += row[at]
        mean = total / _F(size)
        if whole > 0:
            squares = row_squares((start_of(row), whole, mean))
        for at in range(whole * LANES, size):
            squares += (row[at] - mean) * (row[at] - mean)
        steep = _F(1.0) / np.sqrt(squares / _F(size) + epsilon)
        for at in range(size):
            target[at] = fma(((row[at] - mean) * steep, gain[at], shift[at]))


@compiled
def finish(seen, rows, low, high, layer):
    """Do what follows attention in a BERT layer, in `rows`; `seen` is what was attended."""
    mix, mix_norm, widen, narrow, last_norm = layer
    size, wide = widen[2], widen[3]
    bytes_, marks = _room(max(size, wide))
    middle = np.empty((BLOCK, mix[0].shape[0] * _WIDTH), np.float32)
    spread = np.empty((BLOCK, widen[0].shape[0] * _WIDTH), np.float32)
    for first in range(low, high, BLOCK):
        count = min(BLOCK, high - first)
        _quantize(seen, first, count, size, bytes_, marks)
        _multiply(bytes_, marks, count, mix, middle, 0)
        _normalize(middle, count, rows, first, mix_norm, rows)
        _quantize(rows, first, count, size, bytes_, marks)
        _multiply(bytes_, marks, count, widen, spread, 0)
        for place in range(count):
            row = spread[place]
            for at in range(wide):
                row[at] = _gelu(row[at])
        _quantize(spread, 0, count, wide, bytes_, marks)
        _multiply(bytes_, marks, count, narrow, middle, 0)
        _normalize(middle, count, rows, first, last_norm, rows)
