"""Who gets how many tokens of a pair."""

import pytest

from rerank_core import ModelUnavailable, QueryDocumentPair
from rerank_core.limits import PairLimits, usable_length


@pytest.mark.parametrize(
    ("max_length", "asked", "frame", "expected"),
    [(512, None, 3, 384), (512, 64, 3, 64), (40, 40, 3, 36), (8, None, 6, 1)],
)
def test_a_query_keeps_its_share_and_leaves_a_document_one_token(
    max_length, asked, frame, expected
):
    assert PairLimits.of(max_length, asked, frame).max_query_tokens == expected


def test_a_frame_that_leaves_no_room_is_refused():
    with pytest.raises(ModelUnavailable, match="alone takes 20 tokens"):
        PairLimits.of(21, None, 20)


@pytest.mark.parametrize(("asked", "read"), [(None, 30), (50, 30), (10, 10), (0, 0)])
def test_a_pair_may_ask_for_less_of_its_query_and_never_for_more(asked, read):
    """0 was read as "no limit", where None alone is."""
    pair = QueryDocumentPair("q", "d", max_query_tokens=asked)
    assert PairLimits(100, 30).query(pair) == read


def test_what_is_left_for_a_document_is_never_less_than_nothing():
    pair = QueryDocumentPair("q", "d")
    assert [PairLimits(100, 30).room(pair, taken) for taken in (60, 95, 120)] == [40, 5, 0]


def test_a_pair_may_ask_for_a_shorter_whole():
    limits = PairLimits(100, 60)
    pair = QueryDocumentPair("q", "d", max_tokens=40)
    assert (limits.longest(pair), limits.query(pair), limits.room(pair, 25)) == (40, 30, 15)
    longer = QueryDocumentPair("q", "d", max_tokens=400)
    assert (limits.longest(longer), limits.query(longer), limits.room(longer, 25)) == (100, 60, 75)
    assert limits.query(QueryDocumentPair("q", "d", max_tokens=1)) == 1
    assert PairLimits.of(100, None, 20).query(pair) == 19


def test_the_usable_length_is_the_least_of_what_is_known():
    assert usable_length(None, 514, None, -1) == 514
    assert usable_length(100, 10**30, 512) == 100
    assert usable_length(1000, 512) == 512
