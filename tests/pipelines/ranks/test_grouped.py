"""Whether blocks keep the promise that a query's pairs lie side by side in one of them."""

import pyarrow as pa
import pytest

from pipelines.columns import ColumnNames
from pipelines.ranks.grouped import Edges, at_edges
from rerank_core import InvalidRequest


def block(*queries, start=0):
    return pa.table({"query_id": queries, "doc_id": range(start, start + len(queries))})


def torn(*blocks):
    """Which of the blocks show that a query lies in two."""
    edges = Edges()
    return [edges.torn(at_edges(table, ColumnNames())) for table in blocks]


def test_blocks_of_whole_queries_may_come_in_any_order_and_again():
    first, second = block(1, 1, 2, 3), block(4, 5, 5, start=4)
    assert torn(second, first, block(None, None), second, first) == [False] * 5


@pytest.mark.parametrize("places", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_query_in_two_blocks_is_met_whichever_comes_first(places):
    blocks = [block("a", "b", "b"), block("b", "c", start=3), block("d", start=5)]
    assert sorted(torn(*(blocks[place] for place in places))) == [False, False, True]


def test_a_block_with_a_query_in_two_places_is_refused():
    with pytest.raises(InvalidRequest, match="side by side in one block"):
        at_edges(block(1, 2, 1), ColumnNames())
