"""The part on precisions: time on a large shape, and order on real weights, of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.gpu import scorers, shapes
from benchmarks.gpu.machine import seconds_of
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import MIXES, Pair
from rerank_core import ScorerConfig
from rerank_core.config import EMBEDDED_MODEL_DIR


def precision(session: Session) -> None:
    """Measure every precision of ours; what this device has not is refused, and recorded so."""
    large, real = shapes.bge_reranker_v2_m3(session), EMBEDDED_MODEL_DIR
    pools = [_pool(session, large), _pool(session, large if session.dry else real)]
    folder, pool = pools[1]
    exact = scorers.ours(session, folder, dtype="float32").score(scorers.pairs_of(pool)).raw
    session.record("precision", "spread of the float32 logits", round(float(exact.std()), 3))
    dtypes = get_args(ScorerConfig.model_fields["dtype"].annotation)
    variants: dict[str, dict[str, Any]] = {dtype: {"dtype": dtype} for dtype in dtypes}
    # Compiled, the rounding of activations is a part of what stands before each product.
    variants["float8, compile"] = {"dtype": "float8", "compile": True}
    for name, settings in variants.items():
        need_s = 30 if "compile" in settings and not session.dry else 0
        measure = partial(_ours, session, settings, pools, exact)
        with scorers.freed():
            session.attempt("precision", f"ours, {name}", measure, need_s)


# A large shape's pool, to time, and real weights' pool, to rank.
Pools = list[tuple[Path, list[Pair]]]


def _pool(session: Session, folder: Path) -> tuple[Path, list[Pair]]:
    texts = shapes.texts(folder, 100 if session.dry else 450)
    tokens = max(300, session.sizes.pool_tokens // 5)
    return folder, texts.pool(MIXES["chunks"], tokens, seed=5)


def _ours(session: Session, settings: dict[str, Any], pools: Pools, exact: Any) -> dict[str, Any]:
    def scored(folder: Path, texts: list[Pair]) -> tuple[Any, float]:
        with scorers.freed():
            scorer = scorers.ours(session, folder, **settings)
            return _timed(session, lambda: scorer.score(scorers.pairs_of(texts)).raw)

    large, real = pools
    return {"seconds": scored(*large)[1], **distance(exact, scored(*real)[0])}


def _timed(session: Session, score: Callable[[], Any]) -> tuple[Any, float]:
    """Return the scores, and the seconds of the better of two more times."""
    scores = np.asarray(score(), dtype=np.float32)
    return scores, round(min(seconds_of(session.device, score) for _ in range(2)), 4)


def distance(exact: Any, scores: Any) -> dict[str, float]:
    """Return how far scores are from the exact ones: rank correlation, largest difference."""
    if not np.isfinite(scores).all():
        return {"not_finite": int((~np.isfinite(scores)).sum())}
    return {
        "rank_correlation": round(float(np.corrcoef(_ranks(exact), _ranks(scores))[0, 1]), 6),
        "largest_difference": round(float(np.abs(exact - scores).max()), 5),
    }


def _ranks(scores: Sequence[float] | Any) -> Any:
    return np.argsort(np.argsort(scores, kind="stable"), kind="stable")
