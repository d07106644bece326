import pickle

import numpy as np
import pytest

from rerank_core import PairScores, ScoringFailed

NAN = float("nan")


def scores(raw, errors=None, passages=None, unseen=(), fingerprint=None):
    values = np.array(raw, np.float32)
    tokens = np.arange(len(values), dtype=np.int32)
    return PairScores(
        values,
        tokens,
        tokens % 2 == 1,
        errors or {},
        passages or {},
        frozenset(unseen),
        fingerprint,
    )


WHOLE = scores([1, NAN, 3, NAN], {1: "a", 3: "b"}, {2: (7, 9)}, {0, 2}, "f")


def same(one, other):
    return (
        np.array_equal(one.raw, other.raw, equal_nan=True)
        and np.array_equal(one.tokens, other.tokens)
        and np.array_equal(one.truncated, other.truncated)
        and (dict(one.errors), dict(one.passages)) == (dict(other.errors), dict(other.passages))
        and (one.first_stage_only, one.fingerprint) == (other.first_stage_only, other.fingerprint)
    )


@pytest.mark.parametrize("cut", range(5))
def test_parts_of_scores_make_the_whole_again(cut):
    parts = [WHOLE.part(0, cut), WHOLE.part(cut, 4)]
    assert [len(part) for part in parts] == [cut, 4 - cut]
    assert same(PairScores.concat(parts), WHOLE)


def test_a_part_counts_its_errors_and_passages_from_its_own_start():
    part = WHOLE.part(1, 3)
    assert (dict(part.errors), dict(part.passages)) == ({0: "a"}, {1: (7, 9)})
    assert (part.first_stage_only, part.fingerprint) == ({1}, "f")
    assert part.tokens.tolist() == [1, 2]


def test_taken_entries_come_in_the_order_asked_for_also_twice():
    taken = WHOLE.take([3, 2, 2, 0])
    expected = (
        [NAN, 3, 3, 1],
        [3, 2, 2, 0],
        [True, False, False, False],
        {0: "b"},
        {1: (7, 9), 2: (7, 9)},
    )
    assert np.array_equal(taken.raw, np.array(expected[0], np.float32), equal_nan=True)
    assert (taken.tokens.tolist(), taken.truncated.tolist()) == expected[1:3]
    assert (dict(taken.errors), dict(taken.passages)) == expected[3:]
    assert (taken.first_stage_only, taken.fingerprint) == ({1, 2, 3}, "f")


def test_no_pairs_have_no_scores():
    assert same(PairScores.none(), scores([]))
    assert same(PairScores.concat([WHOLE.take([])]), PairScores.concat([]))


def test_each_entry_has_all_three_numbers():
    with pytest.raises(ValueError, match="one entry per pair"):
        PairScores(np.zeros(2, np.float32), np.zeros(1, np.int32), np.zeros(2, np.bool_))


def test_scores_of_two_scorers_are_never_joined():
    parts = [scores([1], fingerprint="f"), scores([2]), scores([3], fingerprint="g")]
    with pytest.raises(ScoringFailed, match="fingerprints f, g"):
        PairScores.concat(parts)


def test_a_whole_has_a_fingerprint_only_if_all_its_parts_do():
    one, unknown = scores([1], fingerprint="f"), scores([2])
    assert PairScores.concat([one, PairScores.none(), one]).fingerprint == "f"
    assert PairScores.concat([one, unknown]).fingerprint is None
    assert PairScores.concat([one, unknown.stamped("f")]).fingerprint == "f"
    assert PairScores.concat([one, scores([], fingerprint="g")]).fingerprint == "f"


def test_scores_survive_the_way_to_another_process():
    assert same(pickle.loads(pickle.dumps(WHOLE)), WHOLE)
