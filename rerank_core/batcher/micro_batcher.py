"""The greedy micro-batcher: callers queue, one worker thread takes what fits when it is free.

It knows nothing of Ray or HTTP, and of the scorer only that one thread may use it. Requests take
turns, so a small one never waits behind all of a large one; work whose caller has gone or whose
deadline has passed is never scored; a failure fails only its own callers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_core.batcher.lanes import Queue, Scored, Waiting
from rerank_core.batcher.pass_rate import PassRate
from rerank_core.batcher.passes import Passes, Score, fail
from rerank_core.errors import ModelUnavailable, Overloaded

PASS_S = 0.1
_STOPPING = "this replica is stopping; send it again"


@dataclass(frozen=True, slots=True)
class BatcherState:
    """A snapshot: work waiting and running, age of that pass (0: none), why it stopped, if it did.

    `tokens_per_s` is the measured rate, None before the first pass. `passes`, `pairs`,
    `merged_callers` and `dropped` count since the start, `failed_in_a_row` since the last success.
    """

    queued_callers: int
    queued_tokens: int
    running_callers: int
    tokens_per_s: float | None
    running_s: float
    last_success: float | None
    broken: str | None
    passes: int
    pairs: int
    merged_callers: int
    dropped: int
    failed_in_a_row: int


class MicroBatcher:
    """Merges concurrent callers into passes.

    A pass has at most `merge_tokens`, and no more than what takes `pass_s` at the measured rate; a
    lone larger unit passes. `score` runs in one thread of this object's own. `max_queued_tokens`
    bounds the queue; beyond it `submit` raises Overloaded. Both may be changed while it runs.
    `tokens_per_s` is a rate measured before, to begin with.
    Tokens are everywhere those that callers give as `cost`; `clock` counts seconds.
    """

    def __init__(
        self,
        score: Score,
        *,
        merge_tokens: int,
        max_queued_tokens: int,
        pass_s: float = PASS_S,
        tokens_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.merge_tokens = merge_tokens
        self.max_queued_tokens = max_queued_tokens
        self._clock = clock
        self._wake = threading.Condition()
        self._queue = Queue()
        self._rate = PassRate(pass_s, tokens_per_s)
        self._passes = Passes(score, self._rate, clock, self._wake)
        self._running: Sequence[Waiting] = ()
        self._running_since: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._thread.start()

    @property
    def pass_s(self) -> float:
        """Seconds that a pass of several units may take."""
        return self._rate.pass_s

    @property
    def tokens_per_s(self) -> float | None:
        """The measured rate, None before the first pass."""
        return self._rate.tokens_per_s

    @property
    def tokens_waiting(self) -> int:
        """Tokens accepted and not answered yet: the queue and the running pass."""
        with self._wake:
            return self._queue.tokens + sum(waiting.cost for waiting in self._running)

    async def submit(
        self,
        pairs: Sequence[Any],
        cost: int,
        *,
        caller: str = "",
        timeout_s: float = float("inf"),
        first: bool = False,
        can_wait: bool = False,
    ) -> Scored:
        """Score `pairs` (about `cost` tokens) together with whoever else waits.

        With `first`, which is for health probes, they are in the next pass, even of a full queue;
        who `can_wait` gets what others leave of passes, and one pass in eight first.
        Raises Overloaded when the queue is full, DeadlineExceeded after `timeout_s`, what the
        scorer raised for these pairs, or ModelUnavailable once it has failed for good.
        """
        now = self._clock()
        waiting = Waiting(pairs, cost, now + timeout_s, now, can_wait=can_wait)
        with self._wake:
            if self._closed or self._passes.broken:
                raise ModelUnavailable(self._passes.broken or _STOPPING)
            full = self._queue.tokens + cost > self.max_queued_tokens
            if self._queue and full and not first:
                raise Overloaded("the replica's queue is full; try again later")
            self._queue.add(caller, waiting, first=first)
            self._wake.notify()
        waiting.future.add_done_callback(lambda _: self._left(caller, waiting))
        # Cancelling this coroutine cancels the future, which takes it out of the queue.
        try:
            return await asyncio.wrap_future(waiting.future)
        except asyncio.CancelledError:
            waiting.left = True
            raise

    def state(self) -> BatcherState:
        """Return what is going on, without waiting for it."""
        with self._wake:
            since, done = self._running_since, self._passes
            return BatcherState(
                queued_callers=len(self._queue),
                queued_tokens=self._queue.tokens,
                running_callers=len(self._running),
                tokens_per_s=self._rate.tokens_per_s,
                running_s=self._clock() - since if since is not None else 0.0,
                last_success=done.last_success,
                broken=done.broken,
                passes=done.passes,
                pairs=done.pairs,
                merged_callers=done.merged_callers,
                dropped=done.dropped + self._queue.dropped,
                failed_in_a_row=done.failed_in_a_row,
            )

    def close(self) -> None:
        """Refuse new work, let the running pass end, fail what still waits."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=60)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closed:
                    self._wake.wait()
                if self._closed:
                    self._refuse_all(_STOPPING)
                    return
                now = self._clock()
                batch = self._queue.take(self._rate.pass_tokens(self.merge_tokens), now)
                if not batch:
                    continue
                self._running_since = now
                self._running = batch
            try:
                self._passes.run(batch)
            except BaseException as error:
                # A panic of Rust code is no Exception. Without an answer its callers, and all who
                # come after them, would wait for a thread that is gone.
                self._passes.broken = (
                    f"the scoring thread failed ({type(error).__name__}); this process must be"
                    " restarted"
                )
                fail(batch, ModelUnavailable(self._passes.broken))
            finally:
                with self._wake:
                    self._running_since = None
                    self._running = ()
                    if self._passes.broken:
                        self._refuse_all(self._passes.broken)

    def _left(self, caller: str, waiting: Waiting) -> None:
        """Make room at once for others when a caller has gone, unless the worker was first."""
        if not waiting.future.cancelled():
            return
        with self._wake:
            self._queue.remove(caller, waiting)

    def _refuse_all(self, why: str) -> None:
        for waiting in self._queue.drain():
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(ModelUnavailable(why))
