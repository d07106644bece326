"""Which pairs share one forward pass: tokens decide, never counts, and how many fit is learned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# For each pair the name of what it begins with, and its tokens; None where nothing is shared.
Prefixes = Sequence[tuple[Hashable, int]] | None


@dataclass(slots=True)
class ComputeCounts:
    """What this process's forward passes did since it started.

    `tokens` are real ones, what pairs share once, `computed_tokens` the same with padding,
    `budget_tokens` what the passes could have held. `out_of_memory` counts passes that did not fit
    and were halved.
    """

    passes: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    budget_tokens: int = 0
    out_of_memory: int = 0


# One for the process: a replica has one scorer, below a cache, a cascade or a splitter.
computed = ComputeCounts()


# Batches in a row that must fit before a shrunken budget grows.
_CALM_BATCHES = 50
# For so many batches a size that did not fit is not tried again, and growth stops when what fits is
# known to a tenth: each further try would cost a pass.
_REMEMBERED_BATCHES = 5000
_CLOSE = 0.1


class TokenBudget:
    """How many tokens fit one forward pass: halved when they do not, then found again by bisection.

    Between what has fitted and what has not it grows by half of the way; a ceiling that is long ago
    is forgotten, as whatever else took memory may have gone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = limit
        self._fits = 0
        self._ceiling: int | None = None
        self._calm = self._since = 0

    def shrink(self, failed_tokens: int) -> None:
        """Go back to what is known to fit, or halve what did not."""
        failed = min(self.tokens, failed_tokens)
        known = self._fits if 2 * self._fits >= failed > self._fits else 0
        self._fits = known
        self.tokens = max(1, known or failed // 2)
        self._ceiling, self._calm, self._since = failed, 0, 0
        computed.out_of_memory += 1
        logger.warning("out of memory at %d tokens; the budget is now %d of %d",
                       failed_tokens, self.tokens, self.limit)  # fmt: skip

    def worked(self, tokens: int) -> None:
        """Count a batch of so many tokens that fitted."""
        self._fits = max(self._fits, tokens)
        self._since += 1
        if self._since >= _REMEMBERED_BATCHES:
            self._ceiling = None
        if self.tokens == self.limit:
            return
        self._calm += 1
        if self._calm >= _CALM_BATCHES:
            self._calm = 0
            self.tokens = self._grown()

    def _grown(self) -> int:
        most = self.tokens + max(1, self.tokens // 4)
        if self._ceiling is not None:
            gap = self._ceiling - self.tokens
            most = min(most, self.tokens + (gap // 2 if gap > _CLOSE * self._ceiling else 0))
        return min(self.limit, most)


# What pairs share is computed once and attended to by each: so many budgets of keys a pass at most.
_MOST_READ = 4


def together(order: Sequence[int], name: Callable[[int], Hashable]) -> list[int]:
    """Return the same order but for this: what has the name of an earlier one follows it."""
    groups: dict[Hashable, list[int]] = {}
    for index in order:
        groups.setdefault(name(index), []).append(index)
    return [index for group in groups.values() for index in group]


def packed_tokens(lengths: Sequence[int], prefixes: Prefixes = None) -> int:
    """Return what a packed pass computes: what several pairs begin with counts once."""
    if prefixes is None:
        return sum(lengths)
    return sum(lengths) - sum(tokens for _, tokens in prefixes) + sum(dict(prefixes).values())


def plan_batches(
    lengths: Sequence[int],
    max_batch_tokens: int,
    *,
    padded: bool = True,
    prefixes: Prefixes = None,
) -> list[list[int]]:
    """Cut pairs into batches whose cost stays within `max_batch_tokens`.

    Takes one token count per pair; returns lists of input indices, every index exactly once,
    longest pairs first (so that running out of memory shows at once, not at the end). The cost of
    a batch is what the scorer pays: longest length times count when `padded`, the sum of the
    lengths when packed. A pair longer than the budget gets a batch of its own. With `prefixes`
    pairs that begin alike are neighbours, and a batch pays for what they share once.

    Raises ValueError for a budget below 1 or a negative length.
    """
    if max_batch_tokens < 1:
        raise ValueError(f"max_batch_tokens must be at least 1, not {max_batch_tokens}")
    if any(length < 0 for length in lengths):
        raise ValueError("a length is negative; lengths are token counts")
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if prefixes is not None:
        order = together(order, prefixes.__getitem__)
    batches: list[list[int]] = []
    batch: list[int] = []
    total = read = 0
    for index in order:
        own = length = lengths[index]
        if prefixes is not None and batch and prefixes[batch[-1]] == prefixes[index]:
            own -= prefixes[index][1]
        cost = lengths[batch[0]] * (len(batch) + 1) if padded and batch else total + own
        if batch and (cost > max_batch_tokens or read + length > _MOST_READ * max_batch_tokens):
            batches.append(batch)
            batch, total, read, own = [], 0, 0, length
        batch.append(index)
        total, read = total + own, read + length
    if batch:
        batches.append(batch)
    return batches
