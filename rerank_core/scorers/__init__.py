"""From a ScorerConfig to a Scorer. Only the modules beside this file import torch."""

from __future__ import annotations

from rerank_core.config import ScorerConfig
from rerank_core.types import Scorer


def load_scorer(config: ScorerConfig) -> Scorer:
    """Load the model that `config` names and return a scorer for it.

    Raises ModelUnavailable with the fix when the model cannot be loaded: a missing folder or file,
    an unknown or gated hub id, no network, a head that is not in the checkpoint.
    """
    if "lexical" in (config.model, config.backend):
        from rerank_core.scorers.lexical import LexicalScorer

        return LexicalScorer(config)
    from rerank_core.scorers.torch_models import load_torch_scorer

    return load_torch_scorer(config)
