"""The type of a column does not depend on which file comes first."""

from itertools import permutations, product

import pyarrow as pa
import pytest

from pipelines.inputs.unify import unify
from rerank_core import InvalidRequest

PLAIN = [
    pa.null(), pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float64(),
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
    pa.binary(16), pa.bool_(), pa.date32(), pa.time32("ms"), pa.time64("ns"), pa.timestamp("s"),
    pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.duration("s"), pa.duration("ns"),
    pa.decimal128(9, 2), pa.decimal128(20, 5), pa.decimal256(60, 0), pa.uuid(),
    pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()),
]  # fmt: skip
NESTED = [
    *(pa.list_(kind) for kind in PLAIN[:13]), pa.large_list(pa.int8()), pa.list_(pa.float64(), 2),
    pa.list_view(pa.string()), pa.struct([("a", pa.int8()), ("b", pa.string())]),
    pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int64()),
]  # fmt: skip


def together(*kinds):
    """The type of x in files that have it of these types, or None if they are refused."""
    files = [(str(n), pa.schema([pa.field("x", kind)])) for n, kind in enumerate(kinds)]
    try:
        return unify(files, lambda name: True).field("x").type
    except InvalidRequest:
        return None


def test_two_types_give_the_same_in_either_order_and_it_holds_what_both_hold():
    for one, two in product(PLAIN + NESTED, repeat=2):
        kind = together(one, two)
        assert kind == together(two, one)
        if kind is not None:
            assert pa.nulls(1, one).cast(kind).type == pa.nulls(1, two).cast(kind).type == kind


@pytest.mark.seconds
def test_three_types_give_the_same_in_any_order():
    for kinds in product(PLAIN[::2], repeat=3):
        assert len({str(together(*order)) for order in permutations(kinds)}) == 1, kinds


def test_the_order_of_fields_is_the_first_files():
    one = pa.struct([("a", pa.int8()), ("b", pa.string())])
    two = pa.struct([("b", pa.large_string()), ("a", pa.int64())])
    assert together(one, two) == pa.struct([("a", pa.int64()), ("b", pa.large_string())])
