"""Runs batches through a model and keeps one bad pair from costing any other its score.

Out of memory halves the token budget, which is remembered and grows back slowly; scores that are
not finite are computed again, together and in float32; a batch that crashes is halved until the
pair that crashes it stands alone. It does not know models, only how to call one.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rerank_core.batching import Prefixes, TokenBudget, computed, packed_tokens, plan_batches
from rerank_core.scorers.passes.faults import (
    is_out_of_memory,
    raise_if_fatal,
    reason_of,
    release_memory,
)
from rerank_core.scorers.passes.transfer import Download
from rerank_core.types import Float32s

logger = logging.getLogger(__name__)


class BatchRunner:
    """Scores items whose `len` is their token count.

    `launch` takes a batch and returns its logits on the device, not waited for; `download` sends
    them on their way to the host. In `exact` the same launch computes in float32. `prefixes` says
    what items begin with, where a launch computes what several begin with once.
    """

    def __init__(
        self,
        launch: Callable[[Sequence[Any]], Tensor],
        exact: Callable[[], contextlib.AbstractContextManager[None]],
        max_batch_tokens: int,
        *,
        padded: bool,
        download: Callable[[Tensor], Download] = Download,
        prefixes: Callable[[Sequence[Any]], Prefixes] = lambda items: None,
    ) -> None:
        self._launch, self._download, self._prefixes = launch, download, prefixes
        self._exact, self._padded = exact, padded
        self.rescued = 0
        self.budget = TokenBudget(max_batch_tokens)

    def run(self, items: Sequence[Any]) -> tuple[Float32s, dict[int, str]]:
        """Return one logit per item, in input order, and for those without one the reason.

        Raises ModelUnavailable when the device itself has failed.
        """
        raw, errors = self._pass(items)
        infinite = [i for i in np.flatnonzero(~np.isfinite(raw)).tolist() if i not in errors]
        raw[infinite] = np.nan
        if infinite:
            self._retry_non_finite(items, infinite, raw, errors)
        return raw, errors

    def _pass(self, items: Sequence[Any]) -> tuple[Float32s, dict[int, str]]:
        raw = np.full(len(items), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        queue = deque(self._plan(items, range(len(items))))
        running: tuple[list[int], Download] | None = None
        while queue or running:
            launched = None
            if queue:
                batch = queue.popleft()
                chosen = [items[i] for i in batch]
                try:
                    launched = batch, self._download(self._launch(chosen))
                except Exception as error:
                    self._after_failure(error, items, batch, queue, errors)
                else:
                    self._count(chosen)
            # The next pass is under way before this one's logits are waited for.
            if running:
                raw[running[0]] = _collect(running[1])
            running = launched
        return raw, errors

    def _retry_non_finite(
        self, items: Sequence[Any], places: list[int], raw: Float32s, errors: dict[int, str]
    ) -> None:
        """Score again what came out infinite: together, in float32, said once in the log."""
        if not self.rescued:
            logger.warning("%d scores are not finite and are computed again in float32; if this"
                           " model overflows often, use dtype bfloat16", len(places))  # fmt: skip
        self.rescued += len(places)
        try:
            with self._exact():
                logits, failed = self._pass([items[i] for i in places])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            release_memory(error)
            reason = "the model's score is not a finite number; in float32 its weights do not fit"
            errors |= dict.fromkeys(places, reason)
            return
        for place, logit in zip(places, logits.tolist(), strict=True):
            if np.isfinite(logit):
                raw[place] = logit
            else:
                errors[place] = "the model's score is not a finite number, also in float32"
        errors |= {places[i]: reason for i, reason in failed.items()}

    def _plan(self, items: Sequence[Any], places: Sequence[int]) -> list[list[int]]:
        waiting = [items[i] for i in places]
        batches = plan_batches(
            list(map(len, waiting)),
            self.budget.tokens,
            padded=self._padded,
            prefixes=self._prefixes(waiting),
        )
        return [[places[i] for i in batch] for batch in batches]

    def _count(self, batch: Sequence[Any]) -> None:
        cost = self._cost(batch)
        computed.passes += 1
        computed.tokens += sum(map(len, batch)) if self._padded else cost
        computed.computed_tokens += cost
        computed.budget_tokens += self.budget.tokens
        self.budget.worked(cost)

    def _cost(self, batch: Sequence[Any]) -> int:
        lengths = list(map(len, batch))
        if self._padded:
            return max(lengths) * len(lengths)
        return packed_tokens(lengths, self._prefixes(batch))

    def _after_failure(
        self,
        error: Exception,
        items: Sequence[Any],
        batch: list[int],
        queue: deque[list[int]],
        errors: dict[int, str],
    ) -> None:
        """Say why the batch's only pair failed, or put the batch back into the queue in parts."""
        raise_if_fatal(error)
        if len(batch) == 1:
            errors[batch[0]] = reason_of(error, len(items[batch[0]]))
            release_memory(error)
        elif not is_out_of_memory(error):
            logger.warning("a batch of %d pairs failed (%s); looking for the pair",
                           len(batch), type(error).__name__)  # fmt: skip
            half = len(batch) // 2
            queue.extendleft([batch[half:], batch[:half]])
        else:
            release_memory(error)
            self.budget.shrink(self._cost([items[i] for i in batch]))
            waiting = [i for part in (batch, *queue) for i in part]
            queue.clear()
            queue.extend(self._plan(items, waiting))


def _collect(logits: Download) -> Float32s:
    try:
        return logits.wait()
    except RuntimeError as error:
        # Work that was launched without complaint and fails only now has no other explanation.
        raise_if_fatal(error)
        raise
