"""What a gateway knows of a model's replicas: what they reported, and what it has sent them.

Reports come with every answer, and from all of them when the last round is old, so that a gateway
that has just started knows what there is. It does not decide what that allows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from serve_app import capacity
from serve_app.pool import ReplicaReport, Reporting

log = logging.getLogger("ray.serve")

# All are asked again so often while requests come: one that has gone is forgotten then.
_ROUND_S = 5.0
# Queues change with every pass: what was held longer ago says nothing.
_HELD_S = 2.0


class KnownReplicas:
    """The latest report of each replica. Tokens are estimated ones, as admission counts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[ReplicaReport, float]] = {}
        self._sent = 0.0
        self._round_at = float("-inf")
        self._round: asyncio.Task[None] | None = None
        self.tokens_per_s = 0.0

    @property
    def count(self) -> int:
        """How many replicas there are, as far as is known."""
        return len(self._heard)

    @property
    def others(self) -> float:
        """Tokens of other gateways: what replicas hold and this one has not sent."""
        recent = self._clock() - _HELD_S
        held = sum(report.tokens_held for report, at in self._heard.values() if at >= recent)
        return max(0.0, held - self._sent)

    @property
    def mean_tokens_per_s(self) -> float:
        """Rate of one replica; 0 while nobody has measured."""
        return self.tokens_per_s / len(self._heard) if self._heard else 0.0

    def unit_tokens(self, costs: Sequence[int], max_batch_tokens: int) -> int:
        """Return the bound of the units of a request whose pairs cost so much."""
        most = capacity.unit_tokens(self.mean_tokens_per_s, max_batch_tokens)
        return capacity.even_unit_tokens(sum(costs), max(costs, default=0), self.count, most)

    @contextmanager
    def sending(self, charge: float) -> Iterator[None]:
        """Count a unit as sent while inside."""
        self._sent += charge
        try:
            yield
        finally:
            self._sent = max(0.0, self._sent - charge)

    def hear(self, report: ReplicaReport | None) -> None:
        """Take what came with an answer, once that unit no longer counts as sent."""
        if report is not None:
            before = self._heard.get(report.replica)
            self.tokens_per_s += report.tokens_per_s - (before[0].tokens_per_s if before else 0.0)
            self._heard[report.replica] = (report, self._clock())

    def hear_all(self, reports: Iterable[ReplicaReport]) -> None:
        """Take a round of all replicas: who is not in it has gone. An empty one says nothing."""
        now = self._clock()
        heard = {report.replica: (report, now) for report in reports}
        if heard:
            self._heard = heard
            self.tokens_per_s = sum(report.tokens_per_s for report, _ in heard.values())

    async def ask(self, pool: Reporting) -> None:
        """Ask all replicas when the last round is old; wait for it only if it is the first."""
        if self._round is None and self._clock() - self._round_at > _ROUND_S:
            self._round = asyncio.ensure_future(self._ask(pool))
        if self._round is not None and not self._heard:
            # Whoever leaves early must not take it from the others who wait.
            await asyncio.shield(self._round)

    async def _ask(self, pool: Reporting) -> None:
        try:
            self.hear_all(await pool.reports())
        except Exception as error:
            # Requests go on with what is known; the type only, messages could hold a text.
            log.warning("replicas could not be asked how they are: %s", type(error).__name__)
        finally:
            self._round_at = self._clock()
            self._round = None
