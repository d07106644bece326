"""Tiles of products in registers, as LLVM: bytes with whole sums, and float32.

Addresses and strides are in bytes. The order of a sum does not depend on a tile's shape.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.vectors import F32, I16, I32, I64, Code, as_intrinsic


def _dot(code: Code, sums: Any, left: Any, right: Any) -> Any:
    """Add to each sum (int32) four products of bytes, the left ones unsigned."""
    lanes = sums.type.count
    if SHAPE.vnni:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return code.call(name, sums.type, sums, left, right)
    builder = code.builder
    halves, wide = ir.VectorType(I16, 2 * lanes), ir.VectorType(I32, 2 * lanes)
    eight = ir.Constant(halves, [8] * 2 * lanes)
    left, right = builder.bitcast(left, halves), builder.bitcast(right, halves)
    lefts = builder.and_(left, ir.Constant(halves, [255] * 2 * lanes)), builder.lshr(left, eight)
    rights = builder.ashr(builder.shl(right, eight), eight), builder.ashr(right, eight)
    for one, other in zip(lefts, rights, strict=True):
        # The shape in which LLVM finds an instruction that multiplies and adds neighbours.
        products = builder.mul(builder.sext(one, wide), builder.sext(other, wide))
        even, odd = (code.pick(products, list(range(k, 2 * lanes, 2))) for k in (0, 1))
        sums = builder.add(sums, builder.add(even, odd))
    return sums


def _write_int_tile(code: Code, *arguments: Any) -> None:
    left, left_stride, right, quads, columns, marks, marks_stride = arguments[:7]
    base, base_stride, out, out_stride = arguments[7:]
    builder, lanes = code.builder, SHAPE.lanes
    whole, real = ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
    places = [(i, j) for i in range(SHAPE.rows) for j in range(SHAPE.vectors)]
    steps = [I64(4 * lanes * j) for j in range(SHAPE.vectors)]
    starts = [builder.add(left, builder.mul(left_stride, I64(i))) for i in range(SHAPE.rows)]

    def turn(index: Any, sums: list[Any]) -> list[Any]:
        panel, at = builder.mul(index, I64(4 * SHAPE.width)), builder.mul(index, I64(4))
        rights = [code.load(right, builder.add(panel, step), whole) for step in steps]
        lefts = [code.spread(code.load(start, at, I32), lanes) for start in starts]
        return [
            _dot(code, total, lefts[i], rights[j])
            for (i, j), total in zip(places, sums, strict=True)
        ]

    sums = code.loop(quads, [ir.Constant(whole, [0] * lanes)] * len(places), turn)
    # Of each column the sum of its weights and their scale, of each row its zero and its scale.
    weights = [code.load(columns, step, whole) for step in steps]
    scales = [code.load(columns, builder.add(step, I64(4 * SHAPE.width)), real) for step in steps]
    for (i, j), total in zip(places, sums, strict=True):
        mark = builder.add(marks, builder.mul(I64(i), marks_stride))
        zero = code.spread(code.load(mark, I64(0), I32), lanes)
        scale = builder.fmul(code.spread(code.load(mark, I64(4), F32), lanes), scales[j])
        exact = builder.sitofp(builder.sub(total, builder.mul(zero, weights[j])), real)
        before = code.load(base, builder.add(builder.mul(base_stride, I64(i)), steps[j]), real)
        value = code.call(f"llvm.fma.v{lanes}f32", real, exact, scale, before)
        code.store(value, out, builder.add(builder.mul(out_stride, I64(i)), steps[j]))


def _float_tile(vectors: int) -> Any:
    def write(code: Code, *arguments: Any) -> None:
        left, left_stride, right, right_stride, count, out, out_stride = arguments
        builder, lanes = code.builder, SHAPE.lanes
        real = ir.VectorType(F32, lanes)
        places = [(i, j) for i in range(SHAPE.rows) for j in range(vectors)]
        starts = [builder.add(left, builder.mul(left_stride, I64(i))) for i in range(SHAPE.rows)]

        def step(index: Any, sums: list[Any]) -> list[Any]:
            line, at = builder.mul(index, right_stride), builder.mul(index, I64(4))
            rights = [
                code.load(right, builder.add(line, I64(j * lanes * 4)), real)
                for j in range(vectors)
            ]
            lefts = [code.spread(code.load(start, at, F32), lanes) for start in starts]
            return [
                code.call(f"llvm.fma.v{lanes}f32", real, lefts[i], rights[j], total)
                for (i, j), total in zip(places, sums, strict=True)
            ]

        sums = code.loop(count, [ir.Constant(real, [0.0] * lanes)] * len(places), step)
        for (i, j), total in zip(places, sums, strict=True):
            start = builder.mul(out_stride, I64(i))
            code.store(total, out, builder.add(start, I64(j * lanes * 4)))

    return as_intrinsic(types.void, write)


# left, left_stride, right, quads, columns, marks, marks_stride, base, base_stride, out, out_stride:
# SHAPE.rows rows of bytes times a panel of weights, as float32, added to `base`.
int_tile = as_intrinsic(types.void, _write_int_tile)
# left, left_stride, right, right_stride, count, out, out_stride: float32, of one or all registers.
wide_tile, narrow_tile = _float_tile(SHAPE.vectors), _float_tile(SHAPE.vectors // 2)
