"""How many scorer replicas a demand wants, and the autoscaling policy of Ray Serve made of it.

Serve pickles this module by value into its controller, where this package is not installed: it
imports the standard library only. It knows demand and rates in estimated tokens, and no request.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Names of what a replica reports; the rest of a demand's name is the gateway that measured it.
RATE, WAITING, DEMAND = "tokens_per_s", "tokens_waiting", "demand/"

# A load this much above the target is noise of arrivals, not a reason for another replica: with a
# ceiling alone, every high tide of ten minutes would start one.
_TOLERANCE = 0.1
# What waits is to be gone in this time, on top of what arrives.
_DRAIN_S = 20.0
# A replica that has told nothing for longer does not count: pushes come every 10 s.
_STALE_S = 30.0


@dataclass(frozen=True)
class Load:
    """What the replicas told: all in estimated tokens, `tokens_per_s` of one replica at work."""

    demand_per_s: float
    tokens_waiting: float
    tokens_per_s: float

    @property
    def busy_replicas(self) -> float:
        """How many replicas this load keeps busy all the time."""
        return (self.demand_per_s + self.tokens_waiting / _DRAIN_S) / self.tokens_per_s


@dataclass
class ReplicaTarget:
    """Decides, moment after moment, how many replicas there shall be.

    Up when the load has been above `target_utilisation` of the replicas asked for, those still
    starting included, for `upscale_delay_s`; at once to what the load wants. Down to what the
    largest load of the last `downscale_delay_s` wants. Neither looks at how busy replicas are, so
    replicas that start or stop do not change the wish: nothing to oscillate.
    """

    target_utilisation: float
    upscale_delay_s: float
    downscale_delay_s: float
    _watched_since: float | None = None
    _short_since: float | None = None
    # Loads that no later one has exceeded, oldest and largest first.
    _peaks: deque[tuple[float, float]] = field(default_factory=deque)

    def decide(self, now_s: float, busy_replicas: float, have: int) -> int:
        """Return the wanted number, given the load in replicas' worth and how many are asked for.

        `now_s` never goes back; any clock.
        """
        if self._watched_since is None:
            self._watched_since = now_s
        while self._peaks and self._peaks[-1][1] <= busy_replicas:
            self._peaks.pop()
        self._peaks.append((now_s, busy_replicas))
        while self._peaks[0][0] < now_s - self.downscale_delay_s:
            self._peaks.popleft()
        if busy_replicas > have * self.target_utilisation * (1 + _TOLERANCE):
            return self._up(now_s, busy_replicas, have)
        self._short_since = None
        if now_s - self._watched_since < self.downscale_delay_s:
            return have
        return min(have, self._replicas(self._peaks[0][1]))

    def _up(self, now_s: float, busy_replicas: float, have: int) -> int:
        if self._short_since is None:
            self._short_since = now_s
        if now_s - self._short_since < self.upscale_delay_s:
            return have
        self._short_since = None
        return max(have, self._replicas(busy_replicas))

    def _replicas(self, busy_replicas: float) -> int:
        # A hair above a whole number is rounding, not load.
        return math.ceil(busy_replicas / self.target_utilisation - 1e-9)


def load_of(reports: Mapping[str, Mapping[Any, Sequence[Any]]], now_s: float) -> Load | None:
    """Return the load that replicas' metrics tell, or None while nobody has measured a rate.

    `reports` is Serve's `raw_metrics`: name -> replica -> points with `timestamp` (time.time) and
    `value`. Each gateway tells its whole demand to many replicas: the largest of its figures
    counts, once, so that it does not matter whose report is old and whose is new.
    """
    told = {
        replica: points[-1].timestamp
        for replica, points in reports.get(RATE, {}).items()
        if points and now_s - points[-1].timestamp < _STALE_S
    }

    def latest(name: str) -> list[float]:
        # A name that a replica has dropped lives on in Serve's store: only its last round counts.
        return [
            points[-1].value
            for replica, points in reports.get(name, {}).items()
            if replica in told and points and points[-1].timestamp >= told[replica]
        ]

    rates = [rate for rate in latest(RATE) if rate > 0]
    if not rates:
        return None
    demands = (max(latest(name), default=0.0) for name in reports if name.startswith(DEMAND))
    return Load(sum(demands), sum(latest(WAITING)), sum(rates) / len(rates))


class DemandPolicy:
    """Serve's policy: replicas for what is asked for, refused work included.

    Give Serve's own delays as 0: damping is done here, on the load.
    """

    def __init__(
        self, *, target_utilisation: float, upscale_delay_s: float, downscale_delay_s: float
    ) -> None:
        self._target = ReplicaTarget(target_utilisation, upscale_delay_s, downscale_delay_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number for an AutoscalingContext; Serve keeps it within its bounds."""
        have: int = context.target_num_replicas
        load = load_of(context.raw_metrics or {}, context.current_time)
        if load is None:
            # From zero Serve itself starts the first; nobody knows yet what one can do.
            return have, {}
        return self._target.decide(context.current_time, load.busy_replicas, have), {}
