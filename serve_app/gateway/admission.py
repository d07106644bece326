"""How much work may be under way: a bound in tokens that follows measured throughput.

It counts estimated tokens and knows nothing of what they are for. Refusing here costs microseconds;
everything that is admitted can be finished in about `max_wait_s`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_core import Overloaded
from serve_app.config import Admission

_WINDOW_S = 0.5
_WEIGHT = 0.3
# A key counts as active this long after its last request.
_ACTIVE_S = 2.0
_LONGEST_WAIT_S = 60.0
# A key with nothing under way may go over the bound by this much, so that a newcomer
# finds room before those who filled it have made any.
_NEWCOMER_ROOM = 1.25


class AdmissionGate:
    """Admits or refuses by token cost, and gives every key its share.

    The bound is throughput times `max_wait_s`. Throughput is measured over busy time; a low figure
    counts only if there was enough work to be slow at.
    """

    def __init__(self, settings: Admission) -> None:
        self.settings = settings
        self.tokens_per_s = 0.0
        self.under_way = 0.0
        self._by_key: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._busy_since = 0.0
        self._window_done = 0.0
        self._window_busy_s = 0.0
        self._window_peak = 0.0

    @property
    def bound(self) -> float:
        """Estimated tokens that may be under way."""
        return max(self.settings.min_tokens, self.tokens_per_s * self.settings.max_wait_s)

    @contextmanager
    def admit(self, cost: int, key: str = "") -> Iterator[None]:
        """Hold room for `cost` tokens while inside. Raises Overloaded when there is none."""
        # A request larger than half the bound must neither starve nor keep all others out.
        charge = min(cost, self.bound / 2)
        self._check(charge, key)
        now = time.monotonic()
        if not self.under_way:
            self._busy_since = now
        self.under_way += charge
        self._window_peak = max(self._window_peak, self.under_way)
        self._by_key[key] = self._by_key.get(key, 0.0) + charge
        done = 0
        try:
            yield
            done = cost
        finally:
            self._release(charge, key, done)

    def _check(self, charge: float, key: str) -> None:
        now = time.monotonic()
        self._seen[key] = now
        if len(self._seen) > 1:
            self._forget(now)
        mine = self._by_key.get(key, 0.0)
        room = self.bound * (1.0 if mine else _NEWCOMER_ROOM)
        keys = len(self._seen)
        if not self.under_way:
            return
        if self.under_way + charge > room:
            over = self.under_way + charge - self.bound
            raise Overloaded("too much work is under way; try again later", self._wait_s(over))
        if keys > 1 and mine and mine + charge > self.bound / keys:
            over = mine + charge - self.bound / keys
            raise Overloaded("this key's share of the work is used up", self._wait_s(over))

    def _release(self, charge: float, key: str, done: float) -> None:
        now = time.monotonic()
        self.under_way = max(0.0, self.under_way - charge)
        left = self._by_key[key] - charge
        if left > 1e-6:
            self._by_key[key] = left
        else:
            del self._by_key[key]
        if not self._by_key:
            self.under_way = 0.0
        self._window_busy_s += now - self._busy_since
        self._busy_since = now
        self._window_done += done
        if self._window_busy_s >= _WINDOW_S:
            self._measure()

    def _measure(self) -> None:
        rate = self._window_done / self._window_busy_s
        loaded = self._window_peak >= self.bound / 2
        if not self.tokens_per_s:
            self.tokens_per_s = rate
        elif rate > self.tokens_per_s or loaded:
            self.tokens_per_s += _WEIGHT * (rate - self.tokens_per_s)
        self._window_done = self._window_busy_s = 0.0
        self._window_peak = self.under_way

    def _forget(self, now: float) -> None:
        for key in [k for k, seen in self._seen.items() if now - seen > _ACTIVE_S]:
            if key not in self._by_key:
                del self._seen[key]

    def _wait_s(self, tokens: float) -> float:
        # Throughput measured while nothing ended says little; nobody should stay away for hours.
        seconds = max(0.0, tokens) / self.tokens_per_s if self.tokens_per_s else 1.0
        return min(seconds, _LONGEST_WAIT_S)
