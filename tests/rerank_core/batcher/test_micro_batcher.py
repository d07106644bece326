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


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Gate:
    """A scorer that waits to be let through, and keeps what each pass was given.

    `during(documents)` is called within each pass.
    """

    def __init__(self, is_open=False, during=lambda documents: None):
        self.during = during
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
        self.during(documents)
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


async def settled():
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


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
        await settled()
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
        await settled()
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
        await settled()
        small = asyncio.create_task(batcher.submit([pair(9)], 10, caller="small"))
        await settled()
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
        await settled()
        gone.cancel()
        await settled()
        gate.open.set()
        await asyncio.gather(first, stays)
        return batcher.state()

    state = run_with(gate, body)
    assert gate.passes == [["0"], ["2"]]
    assert (state.dropped, state.queued_tokens, state.queued_callers) == (1, 0, 0)


def test_the_state_counts_who_waits_and_who_is_in_the_running_pass():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        waits = [asyncio.create_task(batcher.submit([pair(i)], 1)) for i in (1, 2)]
        await settled()
        meanwhile = batcher.state()
        gate.open.set()
        await asyncio.gather(first, *waits)
        return meanwhile

    meanwhile = run_with(gate, body)
    assert (meanwhile.queued_callers, meanwhile.running_callers) == (2, 1)


def test_callers_who_leave_make_room_at_once():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        gone = asyncio.create_task(batcher.submit([pair(1)], 9, caller="gone"))
        await settled()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        room = (batcher.state().queued_callers, batcher.state().queued_tokens)
        late = asyncio.create_task(batcher.submit([pair(2)], 10, caller="late"))
        await settled()
        queued = batcher.state().queued_tokens
        gate.open.set()
        await asyncio.gather(first, late)
        return room, queued, batcher.state().queued_tokens

    assert run_with(gate, body, max_queued_tokens=10) == ((0, 0), 10, 0)
    assert gate.passes == [["0"], ["2"]]


def test_expired_work_is_refused_unscored():
    gate, clock = Gate(), Clock()

    async def body(batcher):
        first = await occupied(batcher, gate)
        late = asyncio.create_task(batcher.submit([pair(1)], 1, timeout_s=2))
        await settled()
        clock.now += 2
        gate.open.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late

    run_with(gate, body, clock=clock)
    assert gate.passes == [["0"]]


def test_a_poisoned_pass_is_done_again_caller_by_caller_and_only_one_fails():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        tasks = [
            asyncio.create_task(batcher.submit([QueryDocumentPair("q", text)], 1, caller=text))
            for text in ("1", "poison", "3")
        ]
        await settled()
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
        await settled()
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
        await settled()
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        while not batcher._closed:
            await asyncio.sleep(0)
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


def test_a_probe_is_in_the_next_pass_though_sixty_units_wait_in_a_full_queue():
    gate = Gate()

    async def body(batcher):
        first = await occupied(batcher, gate)
        units = [asyncio.create_task(batcher.submit([pair(n)], 10, caller="x")) for n in range(60)]
        await settled()
        probe = asyncio.create_task(
            batcher.submit([pair(99)], 1, caller="health", timeout_s=1, first=True)
        )
        await settled()
        gate.open.set()
        await asyncio.gather(first, probe, *units)

    run_with(gate, body, max_queued_tokens=600)
    assert gate.passes[1] == ["99"]
    assert len(gate.passes) == 62


def test_after_a_poisoned_pass_nothing_is_computed_for_those_who_left_or_are_late():
    clock, tasks = Clock(), {}

    def during(documents):
        if len(documents) > 1:  # the merged pass: one caller leaves, one is late
            clock.now += 5
            tasks["loop"].call_soon_threadsafe(tasks["leaves"].cancel)
            assert tasks["left"].wait(10)

    gate = Gate(during=during)

    async def caller(batcher, text, timeout_s):
        try:
            return await batcher.submit(
                [QueryDocumentPair("q", text)], 1, caller=text, timeout_s=timeout_s
            )
        except asyncio.CancelledError:
            tasks["left"].set()
            raise

    async def body(batcher):
        tasks["loop"], tasks["left"] = asyncio.get_running_loop(), threading.Event()
        first = await occupied(batcher, gate)
        asked = [("1", 9), ("poison", 9), ("2", 9), ("3", 4)]
        units = [asyncio.create_task(caller(batcher, *one)) for one in asked]
        tasks["leaves"] = units[2]
        await settled()
        gate.open.set()
        await first
        tasks["batcher"] = batcher
        return await asyncio.gather(*units, return_exceptions=True)

    one, poisoned, left, late = run_with(gate, body, clock=clock)
    assert gate.passes == [["0"], ["1", "poison", "2", "3"], ["1"], ["poison"]]
    # Asked when the thread has ended: it counts behind its answers.
    assert (raw(one), tasks["batcher"].state().dropped) == ([1], 2)
    assert [type(error) for error in (poisoned, left, late)] == [
        ScoringFailed,
        asyncio.CancelledError,
        DeadlineExceeded,
    ]


def test_a_pass_is_no_longer_than_its_seconds_at_the_measured_rate():
    clock = Clock()
    gate = Gate(during=lambda documents: setattr(clock, "now", clock.now + 0.1))

    async def body(batcher):
        assert batcher.tokens_per_s is None
        first = asyncio.create_task(batcher.submit([pair(0)], 100, caller="first"))
        await asyncio.to_thread(gate.entered.wait, 10)
        rest = [
            asyncio.create_task(batcher.submit([pair(n)], 40, caller=str(n))) for n in (1, 2, 3)
        ]
        await settled()
        waiting = batcher.tokens_waiting
        gate.open.set()
        await asyncio.gather(first, *rest)
        return waiting

    assert run_with(gate, body, merge_tokens=10_000, clock=clock) == 220
    # 100 tokens in 0.1 s: two units of 40 fit the next pass, which takes as long for 80.
    assert gate.passes == [["0"], ["1", "2"], ["3"]]


def test_rate_and_waiting_tokens_can_be_asked_for():
    clock = Clock()
    gate = Gate(is_open=True, during=lambda documents: setattr(clock, "now", clock.now + 0.2))

    async def body(batcher):
        await batcher.submit([pair(0)], 100)
        return batcher.tokens_per_s, batcher.state().tokens_per_s, batcher.pass_s

    rate, same, pass_s = run_with(gate, body, merge_tokens=1_000, clock=clock)
    assert rate == same == pytest.approx(500)
    assert pass_s == 0.1


def test_a_pass_that_failed_says_nothing_about_the_rate():
    clock = Clock()
    gate = Gate(is_open=True, during=lambda documents: setattr(clock, "now", clock.now + 0.2))

    async def body(batcher):
        with pytest.raises(ScoringFailed):
            await batcher.submit([QueryDocumentPair("q", "poison")], 100)
        return batcher.tokens_per_s

    assert run_with(gate, body, clock=clock) is None
