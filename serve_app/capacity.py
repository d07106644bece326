"""How much work may be under way, and how large a piece of it may be: pure rules in tokens.

The gateway's admission keeps the counts and asks here; benchmarks/simulate.py asks the same. It
knows no clock, no request and no replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_core.batcher import PASS_S

# Smaller units than this cost more in calls than they gain in turns.
LEAST_UNIT_TOKENS = 1024
# Replicas that a unit's choice looks at; among more, the least loaded of so many is as good.
_LOOK_AT = 16
# One of the few requests that are always admitted has to end in this share of its time.
FEW_SHARE_OF_TIME = 1 / 5


def unit_tokens(tokens_per_s: float, max_batch_tokens: int) -> int:
    """Return the bound of a work unit for one replica's rate; unmeasured (0): a whole batch.

    A unit is one pass of the batcher: a small request never waits longer for the one before it,
    and a large one spreads over as many replicas as it can use.
    """
    if tokens_per_s <= 0:
        return max_batch_tokens
    return min(max_batch_tokens, max(LEAST_UNIT_TOKENS, int(tokens_per_s * PASS_S)))


def even_unit_tokens(cost: int, largest: int, replicas: int, most: int) -> int:
    """Return the bound of a request's units, so that replicas get equally many of them.

    Nine equal units on eight replicas take two turns; sixteen of half the size take as long as one
    and an eighth. `cost` is the request's, `largest` that of its largest pair: units are cut
    between pairs, so an equal share needs that much room.
    """
    count = -(-cost // most)
    if count <= 1 or replicas <= 1:
        return most
    if count > replicas:
        count = -(-count // replicas) * replicas
    return min(most, -(-cost // count) + largest)


def most_tokens(tokens_per_s: float, max_wait_s: float, min_tokens: int) -> float:
    """Return how many tokens may be under way, for the rate of all replicas (0: unmeasured).

    `min_tokens` is for the unmeasured only: as a least bound it would be eight seconds of waiting
    where a replica does 2,000 a second.
    """
    return tokens_per_s * max_wait_s if tokens_per_s > 0 else min_tokens


def charge(cost: int, most: float) -> float:
    """Return what a request counts as: one larger than half of all must not keep others out."""
    return min(cost, most / 2)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is under way: charges of this gateway's requests, the others' sum, all their rate."""

    tokens: float
    others: float
    tokens_per_s: float


def over(asked: float, now: UnderWay, most: float) -> float:
    """Return by how many tokens a charge is too much; 0 or less: there is room."""
    return now.tokens + now.others + asked - most


def few_have_time(cost: int, costs: list[int], now: UnderWay, *, time_left_s: float) -> bool:
    """Say whether one of the few that are admitted even where tokens are too many ends in time.

    `costs` are those under way here. Replicas take turns between requests, so each of them delays
    this one by no more than this one's own size. Without a measured rate nobody can know.
    """
    ahead = now.others + sum(min(cost, other) for other in costs)
    return ahead + cost <= now.tokens_per_s * time_left_s * FEW_SHARE_OF_TIME or (
        now.tokens_per_s <= 0
    )


class Demand:
    """Tokens asked for a second, refused ones included, over the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        # (end of the second, tokens), so that a flood of requests needs no list of its own.
        self._seconds: deque[tuple[int, float]] = deque()

    def add(self, tokens: float, now_s: float) -> None:
        """Count what one request asks for."""
        second = int(now_s) + 1
        if self._seconds and self._seconds[-1][0] == second:
            tokens += self._seconds.pop()[1]
        self._seconds.append((second, tokens))

    def per_s(self, now_s: float) -> float:
        """Return the mean over the window."""
        while self._seconds and self._seconds[0][0] <= now_s - self._window_s:
            self._seconds.popleft()
        return sum(tokens for _, tokens in self._seconds) / self._window_s


def turn(count: int, start: int) -> list[int]:
    """Return the next few of `count` replicas from `start`: those that a unit's choice looks at.

    Of these the least loaded is taken, the first of equals. `start` goes one on with every unit,
    so that idle replicas get units one after the other.
    """
    return [(start + step) % count for step in range(min(count, _LOOK_AT))]


def least_loaded(loads: Sequence[int], start: int) -> int:
    """Return the replica that a unit goes to, given the units that each one has."""
    return min(turn(len(loads), start), key=loads.__getitem__)
