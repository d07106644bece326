"""Vector code that numba cannot be brought to write, as LLVM: sums over rows, and a few functions.

Addresses and strides are in bytes. A result does not depend on the CPU: sums over lanes have one
order, and `fma` rounds once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rerank_core.scorers.int8.compiled import LANES

I16, I32, I64, F32 = (*(ir.IntType(bits) for bits in (16, 32, 64)), ir.FloatType())


class Code:
    """A builder with the few things that the functions below say."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call one of LLVM's functions."""
        shape = ir.FunctionType(result, [argument.type for argument in arguments])
        found = cgutils.get_or_insert_function(self.builder.module, shape, name)
        return self.builder.call(found, arguments)

    def load(self, base: Any, offset: Any, kind: Any) -> Any:
        """Read a value of that kind at an address, aligned or not."""
        return self.builder.load(self._at(base, offset, kind), align=1)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Write a value."""
        self.builder.store(value, self._at(base, offset, value.type), align=1)

    def _at(self, base: Any, offset: Any, kind: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(base, offset), kind.as_pointer())

    def spread(self, value: Any, lanes: int) -> Any:
        """Return a vector of one number."""
        empty = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        one = self.builder.insert_element(empty, value, I32(0))
        places = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, empty, places)

    def pick(self, vector: Any, places: list[int]) -> Any:
        """Return the numbers at those places."""
        chosen = ir.Constant(ir.VectorType(I32, len(places)), places)
        return self.builder.shuffle_vector(vector, vector, chosen)

    def loop(
        self, count: Any, start: list[Any], step: Callable[[Any, list[Any]], list[Any]]
    ) -> Any:
        """Return what `step(index, values)` leaves after `count` turns, of which there is one."""
        builder, before = self.builder, self.builder.block
        inside = builder.append_basic_block("turn")
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(I64)
        index.add_incoming(I64(0), before)
        values = [builder.phi(value.type) for value in start]
        for value, first in zip(values, start, strict=True):
            value.add_incoming(first, before)
        after = step(index, values)
        following = builder.add(index, I64(1))
        index.add_incoming(following, builder.block)
        for value, last in zip(values, after, strict=True):
            value.add_incoming(last, builder.block)
        outside = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following, count), inside, outside)
        builder.position_at_end(outside)
        return after

    def fold(self, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
        """Join the halves of a vector until one number is left."""
        half = vector.type.count
        while half > 1:
            half //= 2
            low, high = list(range(half)), list(range(half, 2 * half))
            vector = join(self.pick(vector, low), self.pick(vector, high))
        return self.builder.extract_element(vector, I32(0))


def as_intrinsic(result: Any, write: Callable[..., Any]) -> Any:
    """Return what numba calls, with one tuple: `write(code, *its values)` gives the result."""

    def function(context: Any, arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            parts = cgutils.unpack_tuple(builder, values[0])
            value = write(Code(builder), *parts)
            return context.get_dummy_value() if result is types.void else value

        return result(arguments), generate

    return intrinsic(function)


def _over_row(start: float, join: Callable[..., Any]) -> Any:
    """Fold a row of float32 by whole registers: (address, registers, arguments of `join`)."""

    def write(code: Code, row: Any, count: Any, *more: Any) -> Any:
        lanes = ir.VectorType(F32, LANES)
        spread = [code.spread(value, LANES) for value in more]

        def step(index: Any, values: list[Any]) -> list[Any]:
            at = code.builder.mul(index, I64(4 * LANES))
            return [join(code, values[0], code.load(row, at, lanes), *spread)]

        (found,) = code.loop(count, [ir.Constant(lanes, [start] * LANES)], step)
        return code.fold(found, lambda low, high: join(code, low, high))

    return as_intrinsic(types.float32, write)


def _add(code: Code, total: Any, value: Any) -> Any:
    return code.builder.fadd(total, value)


def _add_square(code: Code, total: Any, value: Any, mean: Any = None) -> Any:
    if mean is None:
        return code.builder.fadd(total, value)
    distance = code.builder.fsub(value, mean)
    return code.call(f"llvm.fma.v{LANES}f32", total.type, distance, distance, total)


def _pick(sign: str) -> Callable[..., Any]:
    def join(code: Code, best: Any, value: Any) -> Any:
        return code.builder.select(code.builder.fcmp_ordered(sign, value, best), value, best)

    return join


def _power_of_two(code: Code, exponent: Any) -> Any:
    builder = code.builder
    whole = builder.add(builder.fptosi(exponent, I32), I32(127))
    return builder.bitcast(builder.shl(whole, I32(23)), F32)


row_sum, row_squares = _over_row(0.0, _add), _over_row(0.0, _add_square)
row_min, row_max = _over_row(3e38, _pick("<")), _over_row(-3e38, _pick(">"))
fma = as_intrinsic(types.float32, lambda code, *three: code.call("llvm.fma.f32", F32, *three))
rint = as_intrinsic(types.float32, lambda code, value: code.call("llvm.rint.f32", F32, value))
power_of_two = as_intrinsic(types.float32, _power_of_two)
