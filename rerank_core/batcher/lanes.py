"""Who waits, and whose turn it is. It knows nothing of threads; its owner holds the lock."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rerank_core.errors import DeadlineExceeded
from rerank_core.scores import PairScores

# How many lanes are looked past for one that fits: the rest of a pass is filled, and a queue of
# thousands is not walked for it.
_LOOK_PAST = 8
# One pass in so many is filled from those who can wait first, so that they do not starve.
_THEIR_TURN = 8


@dataclass(frozen=True, slots=True)
class Scored:
    """One caller's scores, with the seconds it waited and the seconds its pass took."""

    scores: PairScores
    queue_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class Waiting:
    """One unit of a caller's work: pairs, or what the scorer's first half made of them.

    `deadline` and `queued_at` are of the owner's clock.
    """

    pairs: Sequence[Any]
    cost: int
    deadline: float
    queued_at: float
    future: Future[Scored] = field(default_factory=Future)
    can_wait: bool = False
    left: bool = False  # A future that runs cannot be cancelled any more.
    overtaken: bool = False

    def is_wanted(self, now: float) -> bool:
        """Say whether somebody still waits for this; answer a caller whose time is up."""
        if self.left or self.future.cancelled():
            return False
        if self.deadline > now:
            return True
        self.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
        return False


class Lanes:
    """One lane a caller; the first lane is next, and one that was served goes to the end."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self.tokens = 0
        self.dropped = 0

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, caller: str, waiting: Waiting, *, first: bool = False) -> None:
        """Put a unit at the end of its caller's lane; with `first` that lane is next."""
        self._lanes.setdefault(caller, deque()).append(waiting)
        self.tokens += waiting.cost
        if first:
            self._lanes.move_to_end(caller, last=False)

    def remove(self, caller: str, waiting: Waiting) -> None:
        """Take a unit out whose caller has gone, if it is still here."""
        lane = self._lanes.get(caller)
        if lane is None or waiting not in lane:
            return
        lane.remove(waiting)
        if not lane:
            del self._lanes[caller]
        self.tokens -= waiting.cost
        self.dropped += 1

    def take(self, max_tokens: float, now: float, taken: float = 0.0) -> list[Waiting]:
        """Take units in turn up to `max_tokens`, `taken` included; a larger one goes alone.

        A few lanes are looked past whose unit does not fit what is left. They stay in front, and
        no unit is overtaken in more than one pass, so that none starves. Units whose caller has
        left or whose deadline has passed are dropped; the latter get DeadlineExceeded.
        """
        batch: list[Waiting] = []
        passed: list[tuple[str, deque[Waiting], int]] = []
        tokens = taken
        while self._lanes:
            caller, lane = next(iter(self._lanes.items()))
            waiting = lane[0]
            live = waiting.deadline > now and not waiting.future.cancelled()
            if live and tokens and tokens + waiting.cost > max_tokens:
                if waiting.overtaken or len(passed) == _LOOK_PAST:
                    break
                passed.append((caller, self._lanes.pop(caller), len(batch)))
                continue
            lane.popleft()
            self.tokens -= waiting.cost
            if lane:
                self._lanes.move_to_end(caller)
            else:
                del self._lanes[caller]
            if waiting.future.set_running_or_notify_cancel() and waiting.is_wanted(now):
                batch.append(waiting)
                tokens += waiting.cost
            else:
                self.dropped += 1
        for caller, lane, before in reversed(passed):
            lane[0].overtaken = len(batch) > before
            self._lanes[caller] = lane
            self._lanes.move_to_end(caller, last=False)
        return batch

    def drain(self) -> Iterator[Waiting]:
        """Take everything out."""
        while self._lanes:
            _, lane = self._lanes.popitem(last=False)
            yield from lane
        self.tokens = 0


class Queue:
    """Two classes of lanes: who can wait fills what the others leave of a pass.

    One pass in eight is theirs first, so that they move however many others come.
    """

    def __init__(self) -> None:
        self._first, self._rest = Lanes(), Lanes()
        self._passes = 0

    @property
    def tokens(self) -> int:
        """Tokens of all that waits."""
        return self._first.tokens + self._rest.tokens

    @property
    def dropped(self) -> int:
        """Units that nobody wanted any more when their turn came, or before."""
        return self._first.dropped + self._rest.dropped

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    def __bool__(self) -> bool:
        return bool(self._first or self._rest)

    def add(self, caller: str, waiting: Waiting, *, first: bool = False) -> None:
        """Put a unit at the end of its caller's lane; with `first` that lane is next."""
        self._of(waiting).add(caller, waiting, first=first)

    def remove(self, caller: str, waiting: Waiting) -> None:
        """Take a unit out whose caller has gone, if it is still here."""
        self._of(waiting).remove(caller, waiting)

    def take(self, max_tokens: float, now: float) -> list[Waiting]:
        """Take units up to `max_tokens`, as `Lanes.take` does of each class."""
        order = [self._first, self._rest]
        self._passes = (self._passes + 1) % _THEIR_TURN if self._rest else 0
        if self._rest and not self._passes:
            order.reverse()
        batch = order[0].take(max_tokens, now)
        return batch + order[1].take(max_tokens, now, sum(one.cost for one in batch))

    def drain(self) -> Iterator[Waiting]:
        """Take everything out."""
        yield from self._first.drain()
        yield from self._rest.drain()

    def _of(self, waiting: Waiting) -> Lanes:
        return self._rest if waiting.can_wait else self._first
