"""How much work may be under way: a bound in tokens that follows measured throughput.

It counts estimated tokens and knows nothing of what they are for. What is admitted can be finished
in about `max_wait_s`; a few whole requests are admitted beyond it while their deadline can be met.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_core import Overloaded
from serve_app.config import Admission

_WINDOW_S = 0.5
_WEIGHT = 0.3
_TOO_MUCH = "too much work is under way, try again later"
_SHARE_USED = "this key's share of the work is used up, try again later"
# A key counts as active this long after its last request.
_ACTIVE_S = 2.0
_LONGEST_WAIT_S = 60.0
# Until the first measurement there is room for so many of a replica's largest passes: a new gateway
# knows nothing of the replicas' speed, and need not refuse what they can bear.
_PASSES_UNMEASURED = 16
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
        self.requests = 0
        self._pass_tokens = 0
        # Whole costs; `under_way` counts no more than half the bound of any request.
        self._to_do = 0.0
        self._requests_by_key: Counter[str] = Counter()
        self._by_key: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._busy_since = 0.0
        self._window_done = 0.0
        self._window_busy_s = 0.0
        self._window_peak = 0.0

    @property
    def bound(self) -> float:
        """Estimated tokens that may be under way."""
        if not self.tokens_per_s:
            return max(self.settings.min_tokens, self._pass_tokens * _PASSES_UNMEASURED)
        return max(self.settings.min_tokens, self.tokens_per_s * self.settings.max_wait_s)

    def expect(self, pass_tokens: int) -> None:
        """Note how many tokens a replica takes at once, for the time before any measurement."""
        self._pass_tokens = pass_tokens

    @contextmanager
    def admit(self, cost: int, key: str = "", left_s: float = 0.0) -> Iterator[None]:
        """Hold room for `cost` tokens while inside. Raises Overloaded when there is none.

        `left_s` is what is left until the request's deadline.
        """
        # A request larger than half the bound must neither starve nor keep all others out.
        charge = min(cost, self.bound / 2)
        self._check(cost, charge, key, left_s)
        now = time.monotonic()
        if not self.under_way:
            self._busy_since = now
        self.under_way += charge
        self._window_peak = max(self._window_peak, self.under_way)
        self._by_key[key] = self._by_key.get(key, 0.0) + charge
        self.requests += 1
        self._requests_by_key[key] += 1
        self._to_do += cost
        done = 0
        try:
            yield
            done = cost
        finally:
            self.requests -= 1
            self._requests_by_key -= Counter([key])
            self._to_do -= cost
            self._release(charge, key, done)

    def _check(self, cost: int, charge: float, key: str, left_s: float) -> None:
        now = time.monotonic()
        self._seen[key] = now
        if len(self._seen) > 1:
            self._forget(now)
        mine = self._by_key.get(key, 0.0)
        room = self.bound * (1.0 if mine else _NEWCOMER_ROOM)
        keys = len(self._seen)
        if not self.under_way or self._is_one_of_few(cost, key, left_s):
            return
        if self.under_way + charge > room:
            over = self.under_way + charge - self.bound
            raise Overloaded(f"{_TOO_MUCH}; {self._allowed()}", self._wait_s(over))
        if keys > 1 and mine and mine + charge > self.bound / keys:
            over = mine + charge - self.bound / keys
            raise Overloaded(f"{_SHARE_USED}; {self._allowed()}", self._wait_s(over))

    def _is_one_of_few(self, cost: int, key: str, left_s: float) -> bool:
        few = self.settings.min_requests
        # Keys share this room, too.
        if self.requests >= few or self._requests_by_key[key] >= max(1, few // len(self._seen)):
            return False
        return self._to_do + cost <= self.tokens_per_s * left_s or not self.tokens_per_s

    def _allowed(self) -> str:
        wait_s, few = self.settings.max_wait_s, self.settings.min_requests
        return f"allowed are {wait_s:g} s of it (admission.max_wait_s) or {few} requests"

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
