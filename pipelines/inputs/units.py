"""The plan: which rows make one unit of work. Deterministic; it does not know who does the work.

A unit is a range of rows of one file, about `unit_pairs` pairs. A slice is what one read task
decodes: whole row groups that hold one or more units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Bytes of one unit in memory. It bounds an actor's memory where documents are huge.
MAX_UNIT_BYTES = 64 << 20
# Row groups smaller than this share a slice.
_SLICE_UNITS = 8
# As Spark means them. In nanoseconds, pyarrow's default, 9999-12-31 is read as a day of 1816.
INT96_UNIT = "us"
# Is told of a step of the plan, how much of it is done, and of how much.
Say = Callable[[str, int, int], None]


def silent(step: str, done: int, of: int) -> None:
    """Tell nobody."""


def told(say: Say, step: str, of: int) -> Callable[[int], None]:
    """Return what tells `say` how many of so many a step has done."""
    return lambda done: say(step, done, of)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """What a footer says of a row group: rows, pairs (list entries, for nested rows), bytes."""

    rows: int
    pairs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows `start` up to `stop` of file `file`; `index` is its place in the plan."""

    index: int
    file: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name that its records and files carry."""
        return unit_name(self.index)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


def unit_name(index: int) -> str:
    """Return the name of the unit at this place in the plan; buckets and groups are named alike."""
    return f"{index:06d}"


@dataclass(frozen=True, slots=True)
class Slice:
    """Row groups `first` up to `last` of a file, which start at row `start`, and their units."""

    file: int
    first: int
    last: int
    start: int
    units: tuple[Unit, ...]

    def pending(self, done: set[str]) -> Slice | None:
        """Return the slice with the units that are not done, or None if all are."""
        left = tuple(unit for unit in self.units if unit.name not in done)
        return Slice(self.file, self.first, self.last, self.start, left) if left else None


def plan_slices(
    files: Sequence[Sequence[RowGroup]], unit_pairs: int, first: int = 0
) -> list[Slice]:
    """Cut files, given as their row groups, into slices and units.

    Every row is in exactly one unit; units are numbered in input order, from `first`. A unit has
    about `unit_pairs` pairs at most, at least one row, and about MAX_UNIT_BYTES at most; those of a
    slice have the same size, so that workers who share them out are done together.
    """
    slices: list[Slice] = []
    index = first
    for number, groups in enumerate(files):
        start = 0
        for first, last in _join_small(groups, unit_pairs):
            rows = sum(group.rows for group in groups[first:last])
            count = -(-rows // _rows_per_unit(groups[first:last], unit_pairs))
            ends = [start + rows * place // count for place in range(1, count + 1)]
            units = []
            for low, stop in pairwise([start, *ends]):
                units.append(Unit(index, number, low, stop))
                index += 1
            if units:
                slices.append(Slice(number, first, last, start, tuple(units)))
            start += rows
    return slices


def _join_small(groups: Sequence[RowGroup], unit_pairs: int) -> list[tuple[int, int]]:
    """Return ranges of neighbouring row groups, each about a few units or one large group."""
    ranges: list[tuple[int, int]] = []
    first, pairs, size = 0, 0, 0
    for place, group in enumerate(groups):
        full = pairs + group.pairs > unit_pairs * _SLICE_UNITS
        if place > first and (full or size + group.bytes > MAX_UNIT_BYTES):
            ranges.append((first, place))
            first, pairs, size = place, 0, 0
        pairs += group.pairs
        size += group.bytes
    if first < len(groups):
        ranges.append((first, len(groups)))
    return ranges


def _rows_per_unit(groups: Sequence[RowGroup], unit_pairs: int) -> int:
    rows = max(1, sum(group.rows for group in groups))
    pairs = max(1, sum(group.pairs for group in groups))
    size = max(1, sum(group.bytes for group in groups))
    return max(1, min(unit_pairs * rows // pairs, MAX_UNIT_BYTES * rows // size))


def slices_from_json(values: Sequence[Any]) -> list[Slice]:
    """Return the slices of a plan from their plain form, that of `asdict`."""
    return [slice_from_json(value) for value in values]


def slice_from_json(value: Any) -> Slice:
    """Return one slice from its plain form."""
    units = tuple(Unit(**unit) for unit in value["units"])
    return Slice(value["file"], value["first"], value["last"], value["start"], units)
