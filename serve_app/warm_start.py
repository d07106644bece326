"""From a config to a scorer that is loaded, warm and measured. It knows no replica and no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from rerank_core import QueryDocumentPair, ScorerConfig
from rerank_core.types import LoadedScorer
from serve_app.gateway.units import estimate_tokens


def start_scorer(
    load: Callable[[ScorerConfig], LoadedScorer], config: ScorerConfig, warm_up: bool
) -> tuple[LoadedScorer, dict[str, float], float | None]:
    """Return the scorer, the seconds that loading and warming took, and its estimated tokens/s.

    The rate is None where it is not warmed up.
    """
    begun = time.monotonic()
    scorer = load(config)
    loaded = time.monotonic()
    if warm_up:
        # The largest pass first: memory that is not there shows now, not under load.
        scorer.warm_up()
    tokens_per_s = _rate_of(scorer) if warm_up else None
    took = {"load_s": loaded - begun, "warm_up_s": time.monotonic() - loaded}
    return scorer, {name: round(seconds, 2) for name, seconds in took.items()}, tokens_per_s


def _rate_of(scorer: LoadedScorer) -> float:
    """Measure a second's estimated tokens on one full pass, so that nobody has to guess."""
    # Different texts: equal ones are computed once.
    pairs = [
        QueryDocumentPair("how fast is it", f"text {number} " + "of forty common words " * 10)
        for number in range(max(1, scorer.info.max_batch_tokens // 64))
    ]
    begun = time.monotonic()
    scorer.score(pairs)
    took = time.monotonic() - begun
    return sum(estimate_tokens(pairs, scorer.info.max_length)) / max(took, 1e-3)
