"""From a ScorerConfig to a Scorer. Only the modules beside this file import torch."""

from __future__ import annotations

from typing import Any

from rerank_core.config import ScorerConfig
from rerank_core.types import LoadedScorer


def load_scorer(config: ScorerConfig) -> LoadedScorer:
    """Load the model that `config` names and return a scorer for it.

    Long-document splitting, a first stage and a cache of scores stand in front of it as configured.
    Raises ModelUnavailable with the fix when the model cannot be loaded: a missing folder or file,
    an unknown or gated hub id, no network, a head that is not in the checkpoint.
    """
    scorer = _splitting(config, _load_model(config))
    if config.first_stage is not None:
        from rerank_core.cascade import CascadeScorer

        first = config.first_stage
        changes = {
            "model": first.model,
            "revision": first.revision,
            "max_length": first.max_length,
            "backend": "auto",
            "template": None,
            "instruction": None,
            "first_stage": None,
            "cache_pairs": 0,
        }
        small = load_scorer(config.model_copy(update=changes))
        scorer = CascadeScorer(small, scorer, first.keep)
    elif config.cache_pairs:
        # Not over a cascade: there a pair's score depends on the other candidates.
        from rerank_core.cache import CachedScorer

        scorer = CachedScorer(scorer, config.cache_pairs)
    return scorer


def _load_model(config: ScorerConfig) -> Any:
    if "lexical" in (config.model, config.backend):
        from rerank_core.scorers.lexical import LexicalScorer

        return LexicalScorer(config)
    from rerank_core.scorers.choice import load_torch_scorer

    return load_torch_scorer(config)


def _splitting(config: ScorerConfig, scorer: Any) -> LoadedScorer:
    if config.long_documents == "truncate":
        plain: LoadedScorer = scorer
        return plain
    from rerank_core.documents import SplitPolicy, SplittingScorer

    policy = SplitPolicy(
        config.passage_tokens, config.passage_overlap, config.passage_score, config.max_passages
    )
    tokens = scorer.document_tokens
    return SplittingScorer(scorer, policy, tokens.texts.offsets, tokens.document_room)
