from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.inputs.units import (
    MAX_UNIT_BYTES,
    RowGroup,
    plan_slices,
    slices_from_json,
)

pytestmark = pytest.mark.seconds

groups = st.builds(
    lambda rows, per_row, size: RowGroup(rows, rows * per_row, rows * size),
    rows=st.integers(0, 3000),
    per_row=st.integers(0, 50),
    size=st.integers(1, 100_000),
)
layouts = st.lists(st.lists(groups, max_size=6), max_size=4)


# Large layouts take long on a busy machine.
@settings(deadline=None)
@given(layouts, st.integers(1, 5000))
def test_every_row_is_in_exactly_one_unit_and_units_are_in_order(files, unit_pairs):
    units = [unit for piece in plan_slices(files, unit_pairs) for unit in piece.units]
    assert [unit.index for unit in units] == list(range(len(units)))
    rows = [(unit.file, row) for unit in units for row in range(unit.start, unit.stop)]
    assert rows == [
        (number, row)
        for number, file in enumerate(files)
        for row in range(sum(group.rows for group in file))
    ]


@settings(deadline=None)
@given(layouts, st.integers(1, 5000))
def test_a_slice_holds_whole_row_groups_and_starts_where_they_start(files, unit_pairs):
    for piece in plan_slices(files, unit_pairs):
        groups = files[piece.file]
        assert piece.start == sum(group.rows for group in groups[: piece.first])
        rows = sum(group.rows for group in groups[piece.first : piece.last])
        assert sum(unit.rows for unit in piece.units) == rows


def test_a_unit_has_about_the_pairs_asked_for():
    (piece,) = plan_slices([[RowGroup(1000, 20_000, 1000)]], 500)
    assert {unit.rows for unit in piece.units} == {25}


def test_units_of_a_slice_have_the_same_size_and_none_is_a_small_rest():
    (piece,) = plan_slices([[RowGroup(20_000, 20_000, 1000)]], 2048)
    assert [unit.rows for unit in piece.units] == [2000] * 10


def test_huge_documents_make_small_units():
    (piece,) = plan_slices([[RowGroup(100, 100, 100 * MAX_UNIT_BYTES // 4)]], 4096)
    assert {unit.rows for unit in piece.units} == {4}


def test_small_row_groups_share_a_unit():
    (piece,) = plan_slices([[RowGroup(10, 10, 10)] * 30], 512)
    assert [unit.rows for unit in piece.units] == [300]


def test_pending_leaves_out_what_is_done():
    (piece,) = plan_slices([[RowGroup(10, 10, 10)]], 4)
    left = piece.pending({"000000", "000002"})
    assert left is not None
    assert [unit.name for unit in left.units] == ["000001"]
    assert piece.pending({"000000", "000001", "000002"}) is None


@settings(deadline=None)
@given(layouts)
def test_a_plan_survives_json(files):
    slices = plan_slices(files, 100)
    assert slices_from_json([asdict(piece) for piece in slices]) == slices
