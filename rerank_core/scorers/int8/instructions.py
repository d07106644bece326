"""Which instructions this CPU multiplies bytes with, and the shapes of tiles that suit them."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite.binding import get_host_cpu_features


class Shape(NamedTuple):
    """How products are cut: numbers in a register, rows and registers of a tile."""

    name: str
    vnni: bool
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.lanes * self.vectors


def _shape() -> Shape:
    has = get_host_cpu_features()
    if has.get("avx512vnni") and has.get("avx512f"):
        return Shape("avx512_vnni", True, 16, 6, 4)
    if has.get("avxvnni"):
        return Shape("avx_vnni", True, 8, 6, 2)
    if has.get("avx512bw"):
        return Shape("avx512", False, 16, 6, 2)
    return Shape("avx2" if has.get("avx2") else "any", False, 8, 3, 2)


SHAPE = _shape()
