"""Who may send work to a model's replicas now: a bound in tokens, made of what replicas report.

It counts estimated tokens and knows nothing of what they are for; the rules themselves stand in
`serve_app.capacity`. Refusing here costs microseconds, and what is refused is told to the
autoscaler like what is admitted.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rerank_core import Overloaded
from serve_app import capacity
from serve_app.config import Admission
from serve_app.gateway.known_replicas import KnownReplicas
from serve_app.pool import GatewayDemand, Scoring, UnitScores, WorkUnit

_SHARE_USED = "this key's share of admission.max_wait_s is used up; try again later"
# A key counts as active this long after its last request.
_ACTIVE_S = 2.0
_LONGEST_WAIT_S = 60.0
# A key with nothing under way may go over the bound by this much, so that a newcomer
# finds room before those who filled it have made any.
_NEWCOMER_ROOM = 1.25


@dataclass(slots=True)
class _Key:
    """What one API key has under way, and when it was last seen."""

    seen: float
    requests: int = 0
    charge: float = 0.0


class AdmissionGate:
    """Admits or refuses requests for one model by token cost, and gives every key its share.

    The bound is the rate of all replicas times `max_wait_s`; what other gateways have under way
    counts too. A few requests are admitted in any case while they can end in time.
    """

    def __init__(
        self,
        settings: Admission,
        demand_window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.replicas = KnownReplicas(clock)
        self.under_way = 0.0
        self._clock = clock
        self._name = uuid.uuid4().hex
        self._demand = capacity.Demand(demand_window_s)
        self._numbers = itertools.count()
        self._costs: dict[int, int] = {}
        self._keys: dict[str, _Key] = {}

    @property
    def bound(self) -> float:
        """Estimated tokens that may be under way, those of other gateways included."""
        rules = self.settings
        return capacity.most_tokens(self.replicas.tokens_per_s, rules.max_wait_s, rules.min_tokens)

    def demand(self) -> GatewayDemand:
        """Return what replicas are to know of this gateway."""
        return GatewayDemand(self._name, self._demand.per_s(self._clock()))

    @contextmanager
    def admit(
        self,
        cost: int,
        key: str = "",
        time_left_s: float = float("inf"),
        *,
        can_wait: bool = False,
    ) -> Iterator[float]:
        """Hold room for `cost` tokens while inside; yields the share of them that it counts as.

        What `can_wait` finds room only in a half of the bound, so that others find the rest.
        Raises Overloaded when there is no room.
        """
        now = self._clock()
        self._demand.add(cost, now)
        charge = capacity.charge(cost, self.bound)
        mine = self._key(key, now)
        self._check(cost, charge, mine, time_left_s, can_wait)
        number = next(self._numbers)
        self._costs[number] = cost
        self._count(mine, charge, 1)
        try:
            yield charge / cost if cost else 1.0
        finally:
            del self._costs[number]
            self._count(mine, -charge, -1)

    def check_open(self, seems_to_cost: int, key: str) -> None:
        """Raise Overloaded if not even a token more is admitted now, whatever a request costs."""
        now = self._clock()
        try:
            self._check(1, 1.0, self._key(key, now), float("inf"), False)
        except Overloaded:
            self._demand.add(seems_to_cost, now)
            raise

    def _check(
        self, cost: int, charge: float, mine: _Key, time_left_s: float, can_wait: bool
    ) -> None:
        if not self._costs:
            return
        now = capacity.UnderWay(self.under_way, self.replicas.others, self.replicas.tokens_per_s)
        keys = len(self._keys)
        few = self.settings.min_requests
        if not can_wait and len(self._costs) < few and mine.requests < max(1, few // keys):
            costs = list(self._costs.values())
            if capacity.few_have_time(cost, costs, now, time_left_s=time_left_s):
                return
        bound = self.bound / 2 if can_wait else self.bound
        room = bound if mine.requests else bound * _NEWCOMER_ROOM
        if capacity.over(charge, now, room) > 0:
            message = (
                "too much work is under way (admission.max_wait_s, admission.min_requests);"
                " try again later"
            )
            raise Overloaded(message, self._wait_s(capacity.over(charge, now, bound)))
        over = mine.charge + charge - (bound - now.others) / keys
        if keys > 1 and mine.requests and over > 0:
            raise Overloaded(_SHARE_USED, self._wait_s(over))

    def _count(self, mine: _Key, charge: float, requests: int) -> None:
        mine.requests += requests
        # Sums of floating point numbers keep a rest.
        mine.charge = mine.charge + charge if mine.requests else 0.0
        self.under_way = self.under_way + charge if self._costs else 0.0

    def _key(self, name: str, now: float) -> _Key:
        mine = self._keys.setdefault(name, _Key(now))
        mine.seen = now
        if len(self._keys) > 1:
            for other in [k for k, key in self._keys.items() if now - key.seen > _ACTIVE_S]:
                if not self._keys[other].requests:
                    del self._keys[other]
        return mine

    def _wait_s(self, tokens: float) -> float:
        # Where nobody has measured, nobody knows; and nobody should stay away for hours.
        rate = self.replicas.tokens_per_s
        return min(max(0.0, tokens) / rate if rate else 1.0, _LONGEST_WAIT_S)


class CountedPool:
    """Scores for one admitted request: its units count, and both sides tell each other."""

    def __init__(self, pool: Scoring, gate: AdmissionGate, share: float) -> None:
        self._pool = pool
        self._gate = gate
        self._share = share

    async def score(self, unit: WorkUnit) -> UnitScores:
        """Send a unit with what the gateway has to tell, and take what the replica reports."""
        charge = unit.cost * self._share
        unit = replace(unit, charge=charge, demand=self._gate.demand())
        with self._gate.replicas.sending(charge):
            answer = await self._pool.score(unit)
        self._gate.replicas.hear(answer.report)
        return answer
