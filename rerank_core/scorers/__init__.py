"""From a ScorerConfig to a Scorer. Only the modules beside this file import torch."""

from __future__ import annotations

import os

from rerank_core.catalog.checks import refuse_nonsense
from rerank_core.catalog.resolve import resolve
from rerank_core.config import ScorerConfig
from rerank_core.fingerprint import resolved_fingerprint
from rerank_core.types import LoadedScorer

# On CPUs torch keeps a compiled product for every row count that it meets, 1,024 of them, and
# packed batches rarely repeat one: 400 calls of 400 lengths took 900 MB, with these bounds 70, in
# the same time. torch reads them at its first product; what the environment says stands.
_KEPT_PRODUCTS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "16"}


def load_scorer(config: ScorerConfig) -> LoadedScorer:
    """Load the model that `config` names and return a scorer for it.

    A first stage and a cache of scores stand in front of it as configured. Raises ModelUnavailable
    with the fix when the model cannot be loaded: a missing folder or file, an unknown or gated hub
    id, no network, a head that is not in the checkpoint.
    """
    scorer = _load_model(config)
    first = config.first_stage_config()
    if first is not None and config.first_stage is not None:
        from rerank_core.cascade import CascadeScorer

        return CascadeScorer(load_scorer(first), scorer, config.first_stage.keep)
    if config.cache_pairs:
        # Not over a cascade: there a pair's score depends on the other candidates.
        from rerank_core.cache import CachedScorer

        return CachedScorer(scorer, config.cache_pairs)
    return scorer


def _load_model(config: ScorerConfig) -> LoadedScorer:
    resolved = resolve(config)
    fingerprint = resolved_fingerprint(resolved)
    if resolved.engine == "lexical":
        from rerank_core.scorers.lexical import LexicalScorer

        return LexicalScorer(resolved, fingerprint)
    for name, most in _KEPT_PRODUCTS.items():
        os.environ.setdefault(name, most)
    from rerank_core.scorers.choice import load_torch_scorer

    scorer = load_torch_scorer(resolved, fingerprint)
    if config.self_check:
        refuse_nonsense(config.model, scorer)
    return scorer
