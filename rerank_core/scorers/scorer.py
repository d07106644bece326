"""One scorer for every checkpoint: an encoder makes ids, a forward makes logits, a runner copes.

It does not know which checkpoint gets which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rerank_core.catalog.resolve import Resolved
from rerank_core.scorers.body import Forward
from rerank_core.scorers.encoder import PairEncoder, PreparedPair
from rerank_core.scorers.passes.graphs import TOKENS
from rerank_core.scorers.pipeline import pair_key, score_pool, score_prepared
from rerank_core.scorers.runner import BatchRunner
from rerank_core.types import PairScores, QueryDocumentPair, ScorerInfo

# Measured: on CPUs larger batches fall out of the cache; GPUs want to be full. Padded batches hold
# the attention of whole rectangles, so they stay smaller.
_BUDGETS = {"cpu": (2048, 2048, 2048), "cuda": (65536, 32768, 16384)}
# Characters tokenised ahead, per token of budget: several batches' worth.
_CHUNK_CHARACTERS = 16
# Of a document, where passes are recorded before there is a request.
_USUAL_TOKENS = 100


class TorchScorer:
    """Scores pairs with a model that is loaded and checked; `info` says what was loaded.

    `prepares`: tokenising ahead, by another thread, is worth it.
    """

    def __init__(
        self, resolved: Resolved, fingerprint: str, encoder: PairEncoder, forward: Forward
    ) -> None:
        config, source = resolved.config, resolved.source
        self.encoder, self.forward = encoder, forward
        sizes = _BUDGETS["cpu" if forward.device.type == "cpu" else "cuda"]
        budget = config.max_batch_tokens or sizes[2 if resolved.causal else int(forward.padded)]
        self.info = ScorerInfo(
            model=config.model,
            revision=source.commit or config.revision,
            backend=forward.backend,
            device=str(forward.device),
            dtype=config.dtype,
            max_length=resolved.max_length,
            max_batch_tokens=budget,
            activation=resolved.activation,
            fingerprint=fingerprint,
        )
        self.runner = BatchRunner(
            forward, forward.exactly, budget, padded=forward.padded, prefixes=forward.prefixes
        )
        # On a CPU a tokenising thread would only take cores from the model.
        self.prepares = forward.device.type != "cpu"
        self._chunk = budget * _CHUNK_CHARACTERS if self.prepares else None

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a pair that cannot be scored fails alone."""
        scores = score_pool(
            pairs,
            self.encoder.encode,
            self.runner.run,
            self._chunk,
            by_query=self.forward.shares,
            passage_score=self.encoder.passage_score,
        )
        return scores.stamped(self.info.fingerprint)

    def prepare(self, pairs: Sequence[QueryDocumentPair]) -> Sequence[PreparedPair]:
        """Tokenise pairs for `run`, one thread at a time, which need not be the scoring one.

        Returns one for each pair, in order; equal pairs share theirs and are scored once.
        """
        distinct = {pair_key(pair): pair for pair in pairs}
        prepared = dict(zip(distinct, self.encoder.encode(list(distinct.values())), strict=True))
        return [prepared[pair_key(pair)] for pair in pairs]

    def run(self, prepared: Sequence[PreparedPair]) -> PairScores:
        """Score prepared pairs, of one call or of several, as `score` would have."""
        scores = score_prepared(prepared, self.runner.run, self.encoder.passage_score)
        return scores.stamped(self.info.fingerprint)

    def warm_up(self) -> None:
        """Score one batch of the largest size, so that the first caller meets a warm device.

        Passes that are replayed are recorded, one of each size.
        """
        longest = self.encoder.longest_pair()
        self.runner.run([longest] * max(1, self.info.max_batch_tokens // len(longest)))
        short = replace(longest, tail=longest.tail[:_USUAL_TOKENS])
        for tokens in TOKENS if self.forward.graphs is not None else ():
            self.runner.run([short] * ((tokens - 2) // len(short)))
