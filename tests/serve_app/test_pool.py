"""What crosses to replicas: columns that are cheap to pickle and come back as the same pairs."""

import pickle

import pytest

from rerank_core import QueryDocumentPair
from serve_app.pool import WorkUnit


@pytest.mark.parametrize(
    "pairs",
    [
        [QueryDocumentPair("q", "a")],
        [QueryDocumentPair("q", "a", 7, 9, "Judge."), QueryDocumentPair("q", "b", 7, 9, "Judge.")],
        [QueryDocumentPair("q", "a"), QueryDocumentPair("r", "b"), QueryDocumentPair("q", "c")],
    ],
)
def test_a_unit_has_the_pairs_that_it_was_made_of(pairs):
    unit = WorkUnit.of(pairs, 12, "caller", 3.0)
    assert pickle.loads(pickle.dumps(unit)) == unit
    assert unit.pairs == tuple(pairs)
    assert (unit.cost, unit.caller, unit.timeout_s) == (12, "caller", 3.0)


def test_one_query_for_all_documents_crosses_once():
    pairs = [QueryDocumentPair("what is it", str(number)) for number in range(100)]
    assert WorkUnit.of(pairs, 1, "caller").queries == ("what is it",)


def test_pairs_that_differ_in_their_limits_are_no_unit():
    with pytest.raises(ValueError, match="share limits"):
        WorkUnit.of([QueryDocumentPair("q", "a", 1), QueryDocumentPair("q", "a", 2)], 1, "caller")
