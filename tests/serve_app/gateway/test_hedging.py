"""Late units are sent to a second replica, within a budget."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from rerank_core import PairScores, QueryDocumentPair
from serve_app.gateway.hedging import HedgedPool, UnitTimes
from serve_app.gateway.retries import RetryBudget
from serve_app.pool import ReplicaLost, UnitScores, WorkUnit
from tests.serve_app.local_pool import LocalPool

UNIT = WorkUnit.of([QueryDocumentPair("q", "d")], 10, "caller", 30.0)
MODEL = LocalPool().model


class Replicas:
    """Answers calls in turn as told: a number of seconds, an error, or never (None)."""

    def __init__(self, *turns, others=True):
        self.turns = list(turns)
        self.units = []
        self.others = others

    def has_other(self, unit):
        # The only one is another one until the unit was sent there.
        return self.others or not self.units

    async def score(self, unit):
        self.units.append(unit)
        number, turn = len(self.units), self.turns.pop(0)
        if turn is None:
            await asyncio.Event().wait()
        if isinstance(turn, Exception):
            raise turn
        await asyncio.sleep(turn)
        raw = np.array([number], np.float32)
        return UnitScores(PairScores(raw, raw.astype(np.int32), raw > 9), MODEL, 0.0, 0.0)


def hedged(replicas, share=0.1, burst=10.0, late_s=0.05):
    pool = HedgedPool(replicas, RetryBudget(share, burst))
    pool.times.late_s = late_s
    return pool


def answer_of(pool):
    """Return which call answered, and whether the unit was hedged."""
    answer = asyncio.run(pool.score(UNIT))
    return int(answer.scores.raw[0]), answer.hedged


def test_a_unit_is_late_after_three_times_the_95th_percentile_once_twenty_are_known():
    times = UnitTimes()
    for _ in range(19):
        times.add(1.0)
    assert times.late_s is None
    times.add(1.0)
    assert times.late_s == 3.0


def test_quick_units_are_not_late_before_half_a_second():
    times = UnitTimes()
    for _ in range(20):
        times.add(0.001)
    assert times.late_s == 0.5


def test_a_unit_that_is_answered_in_time_is_sent_once():
    replicas = Replicas(0.0)
    assert answer_of(hedged(replicas)) == (1, False)
    assert replicas.units == [UNIT]


def test_a_late_unit_is_answered_by_a_second_replica_inside_what_is_left_of_the_deadline():
    replicas = Replicas(None, 0.0)
    assert answer_of(hedged(replicas)) == (2, True)
    second = replicas.units[1]
    assert replace(second, timeout_s=30.0) == UNIT
    assert second.timeout_s < 30.0


def test_the_first_replica_may_still_win():
    assert answer_of(hedged(Replicas(0.1, None))) == (1, True)


def test_an_error_of_one_replica_does_not_end_the_other():
    assert answer_of(hedged(Replicas(0.2, ReplicaLost("gone")))) == (1, True)


def test_a_unit_that_fails_everywhere_raises():
    with pytest.raises(ReplicaLost):
        answer_of(hedged(Replicas(ReplicaLost("gone"))))


@pytest.mark.parametrize(("share", "burst"), [(0.0, 10.0), (0.1, 0.0)])
def test_without_a_budget_nothing_is_sent_twice(share, burst):
    replicas = Replicas(0.1)
    assert answer_of(hedged(replicas, share, burst)) == (1, False)


def test_where_there_is_no_other_replica_nothing_is_sent_twice():
    replicas = Replicas(0.1, others=False)
    assert answer_of(hedged(replicas, share=1.0)) == (1, False)
    assert replicas.units == [UNIT]


def test_the_only_replica_of_all_is_asked_without_a_clock():
    class Only(LocalPool):
        async def score(self, unit):
            await asyncio.sleep(0.1)
            return await super().score(unit)

    pool = hedged(Only())
    answer = asyncio.run(pool.score(UNIT))
    assert (len(answer.scores), answer.hedged, pool.times.late_s) == (1, False, 0.05)


def test_before_enough_units_are_known_nothing_is_late():
    assert answer_of(hedged(Replicas(0.1), late_s=None)) == (1, False)


def test_who_leaves_takes_both_calls_along():
    async def leave():
        pool = hedged(Replicas(None, None))
        task = asyncio.create_task(pool.score(UNIT))
        await asyncio.sleep(0.15)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(leave()) == set()


def test_the_overtaken_call_goes_on_so_that_its_replica_counts_as_busy():
    async def overtake():
        pool = hedged(Replicas(None, 0.0))
        await pool.score(UNIT)
        (call,) = pool._overtaken
        busy = not call.done()
        call.cancel()
        await asyncio.wait([call])
        await asyncio.sleep(0)
        return busy, pool._overtaken

    assert asyncio.run(overtake()) == (True, set())
