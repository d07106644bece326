"""Small passes as CUDA graphs: recorded once for each bucket of tokens, then replayed by one call.

A pass is filled up to its bucket, by segments that are nobody's, so that every shape in it is the
recorded one. It does not know models. Not yet run on a GPU; all but `Recorder` is tested on CPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rerank_core.scorers.passes.faults import raise_if_fatal
from rerank_core.scorers.passes.rows import Row
from rerank_core.scorers.passes.transfer import stage

logger = logging.getLogger(__name__)

# Larger passes keep the device busy longer than their launches take.
TOKENS = (512, 1024, 2048, 4096, 8192)
# A bucket has room for pairs of so many tokens on average; the others are launched as they are.
_TOKENS_PER_SEGMENT = 32
# The kernel's grid grows with the longest segment: for short ones a graph of its own.
_SHORTEST = 128

# Computes a row from its arrays on the device; the last argument is its longest segment, rounded.
Compute = Callable[[Row, Sequence[Tensor], int], Tensor]
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


class Bucket(NamedTuple):
    """What a recorded pass is for: so many tokens and segments, none longer than `longest`."""

    tokens: int
    segments: int
    longest: int

    @classmethod
    def of(cls, row: Row) -> Bucket | None:
        """Return the smallest that a row fits, None where there is none."""
        for tokens in TOKENS:
            segments, left = tokens // _TOKENS_PER_SEGMENT, tokens - len(row.ids)
            if left >= 2 and len(row.lengths) + 2 <= segments:
                longest = max(_SHORTEST, left - 1, *row.lengths)
                return cls(tokens, segments, 1 << (longest - 1).bit_length())
        return None


class Recorder:
    """Records passes on a CUDA device; graphs share their memory, as one runs after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: Any = None

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Return what replays a pass, and the logits that it writes."""
        with torch.cuda.device(self._device):
            # Untyped in torch.
            new_stream: Any = torch.cuda.Stream
            stream = new_stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                # Libraries choose their algorithms and take their memory in the first passes.
                for _ in range(2):
                    run()
            torch.cuda.current_stream().wait_stream(stream)
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            graph: Any = torch.cuda.CUDAGraph()
            options = {"pool": self._memory, "capture_error_mode": "thread_local"}
            with torch.cuda.graph(graph, **options):
                logits = run()
        return graph.replay, logits


class Graphs:
    """The recorded passes of one forward, by bucket, each recorded when it is first met.

    They read the very memory that weights had while they were recorded.
    """

    def __init__(self, compute: Compute, device: torch.device, record: Record) -> None:
        self._compute, self._device, self._record = compute, device, record
        self._known: dict[Bucket, tuple[Tensor, Callable[[], None], Tensor]] = {}
        self._works = True

    def logits(self, row: Row) -> Tensor | None:
        """Return a logit for each pair, good until the next call; None where no graph fits.

        A recording that fails is the last one: said in the log, and passes are launched as ever.
        """
        bucket = Bucket.of(row) if self._works else None
        if bucket is None:
            return None
        filled = row.filled(bucket.tokens, bucket.segments)
        staged = stage(filled.arrays(), self._device)
        if bucket not in self._known:
            try:
                self._known[bucket] = self._recorded(filled, staged, bucket.longest)
            except RuntimeError as error:
                raise_if_fatal(error)
                self._works = False
                logger.warning("no CUDA graphs: recording failed (%s)", type(error).__name__)
                return None
        inputs, replay, logits = self._known[bucket]
        inputs.copy_(staged, non_blocking=True)
        replay()
        return logits[: row.pairs]

    def _recorded(
        self, filled: Row, staged: Tensor, longest: int
    ) -> tuple[Tensor, Callable[[], None], Tensor]:
        # Graphs read their inputs where they lay when they were recorded.
        inputs = staged.to(self._device, copy=True)
        parts = torch.split(inputs, list(map(len, filled.arrays())))
        replay, logits = self._record(lambda: self._compute(filled, parts, longest))
        return inputs, replay, logits
