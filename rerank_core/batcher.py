"""The greedy micro-batcher: callers queue, one worker thread takes what fits when it is free.

It knows nothing of Ray or HTTP, and of the scorer only that one thread may use it. Requests take
turns, so a small one never waits behind all of a large one; work whose caller has gone or whose
deadline has passed is dropped before it is scored; a failure fails only its own callers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rerank_core.errors import DeadlineExceeded, ModelUnavailable, Overloaded, RerankError
from rerank_core.types import PairScores, QueryDocumentPair

Score = Callable[[Sequence[QueryDocumentPair]], PairScores]

_REMEMBERED_S = 1.0
_PASS_S = 0.1
_LEAST_PASS_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Scored:
    """One caller's scores, with the seconds it waited and the seconds its pass took."""

    scores: PairScores
    queue_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class _Waiting:
    pairs: Sequence[QueryDocumentPair]
    cost: int
    deadline: float  # time.monotonic
    queued_at: float
    future: Future[Scored] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class BatcherState:
    """A snapshot: work waiting, age of the running pass (0: none), and why it stopped, if it did.

    `passes`, `pairs`, `merged_callers` and `dropped` count since the start, `failed_in_a_row` since
    the last success.
    """

    queued_callers: int
    queued_tokens: int
    running_s: float
    last_success: float | None
    broken: str | None
    passes: int
    pairs: int
    merged_callers: int
    dropped: int
    failed_in_a_row: int


class PassRate:
    """Tokens a second of forward passes: recent ones count most, each by the time it took."""

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        self._tokens, self._seconds = tokens_per_s * _REMEMBERED_S, _REMEMBERED_S

    @property
    def per_s(self) -> float:
        """The rate; 0 before the first pass."""
        return self._tokens / self._seconds

    def add(self, tokens: float, seconds: float) -> None:
        """Count one pass."""
        seconds = max(seconds, 1e-6)
        if not self._tokens:
            self._seconds = 0.0
        keep = _REMEMBERED_S / (_REMEMBERED_S + seconds)
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + seconds


class MicroBatcher:
    """Merges concurrent callers into passes of at most `merge_tokens` (a lone larger one passes).

    `score` runs in one thread of this object's own. `max_queued_tokens` bounds the queue; beyond it
    `submit` raises Overloaded. Both may be changed while it runs.
    """

    def __init__(
        self,
        score: Score,
        *,
        merge_tokens: int,
        max_queued_tokens: int,
        tokens_per_s: float = 0.0,
    ) -> None:
        self._rate = PassRate(tokens_per_s)
        self.merge_tokens = merge_tokens
        self.max_queued_tokens = max_queued_tokens
        self._score = score
        # One lane a caller; the first lane is next. A lane that was served goes to the end.
        self._lanes: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._queued_tokens = 0
        self._wake = threading.Condition()
        self._closed = False
        self._broken: str | None = None
        self._running_since: float | None = None
        self._last_success: float | None = None
        self._passes = self._pairs = self._merged = self._dropped = self._failed = 0
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._thread.start()

    @property
    def tokens_per_s(self) -> float:
        """Measured rate of passes, in the callers' estimated tokens; 0 before the first."""
        return self._rate.per_s

    async def submit(
        self,
        pairs: Sequence[QueryDocumentPair],
        cost: int,
        *,
        caller: str = "",
        timeout_s: float = float("inf"),
    ) -> Scored:
        """Score `pairs` (about `cost` tokens) together with whoever else waits.

        Raises Overloaded when the queue is full, DeadlineExceeded after `timeout_s`, what the
        scorer raised for these pairs, or ModelUnavailable once it has failed for good.
        """
        now = time.monotonic()
        waiting = _Waiting(pairs, cost, now + timeout_s, now)
        with self._wake:
            if self._closed or self._broken:
                raise ModelUnavailable(self._broken or "this replica is stopping; send it again")
            if self._lanes and self._queued_tokens + cost > self.max_queued_tokens:
                raise Overloaded("the replica's queue is full; try again later")
            self._lanes.setdefault(caller, deque()).append(waiting)
            self._queued_tokens += cost
            self._wake.notify()
        waiting.future.add_done_callback(lambda _: self._left(caller, waiting))
        # Cancelling this coroutine cancels the future, which takes it out of the queue.
        return await asyncio.wrap_future(waiting.future)

    def state(self) -> BatcherState:
        """Return what is going on, without waiting for it."""
        with self._wake:
            since = self._running_since
            return BatcherState(
                queued_callers=sum(len(lane) for lane in self._lanes.values()),
                queued_tokens=self._queued_tokens,
                running_s=time.monotonic() - since if since is not None else 0.0,
                last_success=self._last_success,
                broken=self._broken,
                passes=self._passes,
                pairs=self._pairs,
                merged_callers=self._merged,
                dropped=self._dropped,
                failed_in_a_row=self._failed,
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
                while not self._lanes and not self._closed:
                    self._wake.wait()
                if self._closed:
                    self._refuse_all(ModelUnavailable("this replica is stopping; send it again"))
                    return
                batch = self._take()
                if not batch:
                    continue
                self._running_since = time.monotonic()
            try:
                self._run(batch)
            except BaseException as error:
                # A panic of Rust code is no Exception. Without an answer its callers, and all who
                # come after them, would wait for a thread that is gone.
                self._broken = (
                    f"the scoring thread failed ({type(error).__name__}); this process must be"
                    " restarted"
                )
                _fail(batch, ModelUnavailable(self._broken))
            finally:
                with self._wake:
                    self._running_since = None
                    if self._broken:
                        self._refuse_all(ModelUnavailable(self._broken))

    def _take(self) -> list[_Waiting]:
        """Take turns between callers until the next one does not fit. Needs the lock."""
        batch: list[_Waiting] = []
        tokens = 0
        now = time.monotonic()
        most = self.merge_tokens
        if self.tokens_per_s:
            # Whoever comes next waits for one pass: it takes a tenth of a second at most.
            most = min(most, max(_LEAST_PASS_TOKENS, int(self.tokens_per_s * _PASS_S)))
        while self._lanes:
            caller, lane = next(iter(self._lanes.items()))
            waiting = lane[0]
            live = waiting.deadline > now and not waiting.future.cancelled()
            if live and batch and tokens + waiting.cost > most:
                break
            lane.popleft()
            self._queued_tokens -= waiting.cost
            if lane:
                self._lanes.move_to_end(caller)
            else:
                del self._lanes[caller]
            if waiting.future.set_running_or_notify_cancel() and live:
                batch.append(waiting)
                tokens += waiting.cost
                continue
            self._dropped += 1
            if not waiting.future.cancelled():
                waiting.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
        return batch

    def _left(self, caller: str, waiting: _Waiting) -> None:
        """Make room at once for others when a caller has gone, unless the worker was first."""
        if not waiting.future.cancelled():
            return
        with self._wake:
            lane = self._lanes.get(caller)
            if lane is None or waiting not in lane:
                return
            lane.remove(waiting)
            if not lane:
                del self._lanes[caller]
            self._queued_tokens -= waiting.cost
            self._dropped += 1

    def _run(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        pairs = [pair for waiting in batch for pair in waiting.pairs]
        try:
            scores = self._score(pairs)
            if len(scores) != len(pairs):
                raise RuntimeError("the scorer answered with another number of scores than pairs")
        except ModelUnavailable as error:
            self._failed += 1
            self._broken = str(error)
            _fail(batch, error)
        except Exception as error:
            self._failed += 1
            if len(batch) == 1:
                _fail(batch, error)
                return
            # Somebody's input broke the pass: each caller alone, so that only that one fails.
            for waiting in batch:
                if self._broken:
                    _fail([waiting], ModelUnavailable(self._broken))
                else:
                    self._run([waiting])
        else:
            self._deliver(batch, scores, started)

    def _deliver(self, batch: list[_Waiting], scores: PairScores, started: float) -> None:
        ended = time.monotonic()
        self._rate.add(sum(waiting.cost for waiting in batch), ended - started)
        # A pass without a single score may be its input's fault, or a scorer that only makes NaN.
        useless = bool(scores.errors) and len(scores.errors) == len(scores)
        with self._wake:
            if useless:
                self._failed += 1
            else:
                self._last_success = ended
                self._failed = 0
            self._passes += 1
            self._pairs += len(scores)
            self._merged += len(batch)
        start = 0
        for waiting in batch:
            stop = start + len(waiting.pairs)
            part = scores.part(start, stop)
            waiting.future.set_result(Scored(part, started - waiting.queued_at, ended - started))
            start = stop

    def _refuse_all(self, error: RerankError) -> None:
        for lane in self._lanes.values():
            for waiting in lane:
                if waiting.future.set_running_or_notify_cancel():
                    waiting.future.set_exception(error)
        self._lanes.clear()
        self._queued_tokens = 0


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
