import asyncio
import threading

import numpy as np
import pytest

from rerank_core import (
    DeadlineExceeded,
    ModelUnavailable,
    Overloaded,
    PairScores,
    QueryDocumentPair,
    ScoringFailed,
)
from rerank_core.batcher import MicroBatcher


def pair(number):
    return QueryDocumentPair("q", str(number))


class Gate:
    """A scorer that waits to be let through, and keeps what each pass was given."""

    def __init__(self, is_open=False):
        self.passes = []
        self.entered = threading.Event()
        self.open = threading.Event()
        if is_open:
            self.open.set()

    def __call__(self, pairs):
        documents = [document for _, document in pairs]
        self.passes.append(documents)
        self.entered.set()
        assert self.open.wait(10)
        if "poison" in documents:
            raise ScoringFailed("no score")
        if "dead" in documents:
            raise ModelUnavailable("the device is gone")
        numbers = np.array([float(document) for document in documents], np.float32)
        n = len(numbers)
        return PairScores(numbers, np.ones(n, np.int32), np.zeros(n, bool))


def run_with(gate, body, **settings):
    batcher = MicroBatcher(gate, **{"merge_tokens": 10, "max_queued_tokens": 1000, **settings})

    async def go():
        async with asyncio.timeout(10):
            return await body(batcher)

    try:
        return asyncio.run(go())
    finally:
        gate.open.set()
        batcher.close()


async def occupied(batcher, gate):
    """Start a first pass and return its task while it is stuck in the scorer."""
    task = asyncio.create_task(batcher.submit([pair(0)], 1, caller="first"))
    await asyncio.to_thread(gate.entered.wait, 10)
    return task


def raw(scored):
    return scored.scores.raw.tolist()


def test_callers_that_wait_share_the_next_pass_and_get_their_own_scores():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        rest = [
            asyncio.create_task(batcher.submit([pair(i), pair(-i)], 2, caller=str(i)))
            for i in (1, 2, 3)
        ]
        await asyncio.sleep(0.05)
        gate.open.set()
        return [raw(scored) for scored in await asyncio.gather(first, *rest)]

    assert run_with(gate, body) == [[0], [1, -1], [2, -2], [3, -3]]
    assert gate.passes == [["0"], ["1", "-1", "2", "-2", "3", "-3"]]


def test_a_pass_stops_at_the_token_budget_and_a_larger_unit_goes_alone():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        rest = [
            asyncio.create_task(batcher.submit([pair(i)], cost, caller=str(i)))
            for i, cost in ((1, 6), (2, 6), (3, 50))
        ]
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, *rest)

    run_with(gate, body)
    assert gate.passes == [["0"], ["1"], ["2"], ["3"]]


def test_callers_take_turns_so_a_small_request_overtakes_a_large_one():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        large = [
            asyncio.create_task(batcher.submit([pair(i)], 10, caller="large")) for i in (1, 2, 3)
        ]
        await asyncio.sleep(0.05)
        small = asyncio.create_task(batcher.submit([pair(9)], 10, caller="small"))
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, small, *large)

    run_with(gate, body)
    assert gate.passes == [["0"], ["1"], ["9"], ["2"], ["3"]]


def test_cancelled_callers_are_dropped_before_scoring():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        gone = asyncio.create_task(batcher.submit([pair(1)], 1, caller="gone"))
        stays = asyncio.create_task(batcher.submit([pair(2)], 1, caller="stays"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, stays)
        return batcher.state()

    state = run_with(gate, body)
    assert gate.passes == [["0"], ["2"]]
    assert (state.dropped, state.queued_tokens, state.queued_callers) == (1, 0, 0)


def test_callers_who_leave_make_room_at_once():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        gone = asyncio.create_task(batcher.submit([pair(1)], 9, caller="gone"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        room = (batcher.state().queued_callers, batcher.state().queued_tokens)
        late = asyncio.create_task(batcher.submit([pair(2)], 10, caller="late"))
        await asyncio.sleep(0.05)
        queued = batcher.state().queued_tokens
        gate.open.set()
        await asyncio.gather(first, late)
        return room, queued, batcher.state().queued_tokens

    assert run_with(gate, body, max_queued_tokens=10) == ((0, 0), 10, 0)
    assert gate.passes == [["0"], ["2"]]


def test_expired_work_is_refused_unscored():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        late = asyncio.create_task(batcher.submit([pair(1)], 1, timeout_s=0.01))
        await asyncio.sleep(0.05)
        gate.open.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late

    run_with(gate, body)
    assert gate.passes == [["0"]]


def test_a_poisoned_pass_is_done_again_caller_by_caller_and_only_one_fails():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        tasks = [
            asyncio.create_task(batcher.submit([QueryDocumentPair("q", text)], 1, caller=text))
            for text in ("1", "poison", "3")
        ]
        await asyncio.sleep(0.05)
        gate.open.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    one, poisoned, three = run_with(gate, body)
    assert (raw(one), raw(three)) == ([1], [3])
    assert isinstance(poisoned, ScoringFailed)


def test_a_failed_model_fails_everyone_at_once_and_says_so():
    gate = Gate(is_open=True)

    async def body(batcher):
        with pytest.raises(ModelUnavailable):
            await batcher.submit([QueryDocumentPair("q", "dead")], 1)
        with pytest.raises(ModelUnavailable):
            await batcher.submit([pair(1)], 1)
        return batcher.state().broken

    assert run_with(gate, body) == "the device is gone"
    assert gate.passes == [["dead"]]


def test_a_full_queue_refuses_at_once():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        waits = asyncio.create_task(batcher.submit([pair(1)], 8))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await batcher.submit([pair(2)], 8)
        gate.open.set()
        return raw(await first), raw(await waits)

    assert run_with(gate, body, max_queued_tokens=10) == ([0], [1])


def test_close_ends_the_running_pass_and_fails_what_waits():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        waits = asyncio.create_task(batcher.submit([pair(1)], 1))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        gate.open.set()
        await closing
        with pytest.raises(ModelUnavailable):
            await waits
        with pytest.raises(ModelUnavailable):
            await batcher.submit([pair(2)], 1)
        return raw(await first)

    assert run_with(gate, body) == [0]


class Panic(BaseException):
    """What a panic in Rust code looks like from Python."""


def test_a_panic_in_the_scorer_answers_everyone_instead_of_leaving_them_waiting():
    def panics(pairs):
        raise Panic

    async def go(batcher):
        async with asyncio.timeout(10):
            for _ in range(2):
                with pytest.raises(ModelUnavailable, match=r"failed \(Panic\); .* restarted"):
                    await batcher.submit([pair(1)], 1)

    batcher = MicroBatcher(panics, merge_tokens=10, max_queued_tokens=100)
    asyncio.run(go(batcher))
    batcher.close()
