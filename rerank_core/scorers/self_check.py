"""What a model must pass before it serves: probes scored two ways, and obvious questions.

It does not know how a scorer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from rerank_core.catalog.questions import obvious_pairs
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.types import QueryDocumentPair, Scorer

# How far packed scores may be from padded ones, for logits up to 1; larger ones in proportion.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def refuse_nonsense(model: str, scorer: Scorer) -> None:
    """Raise ModelUnavailable for a model that fails on obvious pairs, or ranks them wrongly."""
    scores = scorer.score(obvious_pairs())
    if scores.errors:
        reason = next(iter(scores.errors.values()))
        raise ModelUnavailable(
            f"model {model!r} cannot score plain sentences: {reason}. Try dtype float32 or another"
            " backend"
        )
    relevant, irrelevant = scores.raw[0::2], scores.raw[1::2]
    if not (relevant > irrelevant).all():
        raise ModelUnavailable(
            f"model {model!r} ranks obvious pairs wrongly (relevant {relevant.round(3).tolist()},"
            f" irrelevant {irrelevant.round(3).tolist()}). A missing or wrong prompt template, a"
            " wrong head or weights that were never trained do that; for a model without English"
            " set self_check to false"
        )


def probe_pairs(window: int | None) -> list[QueryDocumentPair]:
    """Return pairs of unequal lengths, one of them longer than the model's attention window.

    One stands twice, with query and document swapped: a model that mixes them up is seen.
    """
    long = "The bridge was finished in 1932, and opened by the mayor. " * (3 + (window or 0) // 6)
    query, answer = "how many people live in the town", "About three million live there."
    texts = [(query, answer), (answer, query), ("what", long), ("中国的首都是哪里?", "北京。" * 9)]
    return [QueryDocumentPair(query, document) for query, document in texts]


def agreement(
    forward: Callable[[Sequence[TokenizedPair]], Tensor],
    probes: Sequence[TokenizedPair],
    expected: Tensor,
    dtype: str,
) -> str | None:
    """Return why a way to compute is not to be trusted, None where its scores are as expected."""
    try:
        found = forward(probes).float().cpu()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        return f"its attention does not take packed rows ({type(error).__name__}: {error})"
    wanted = expected.float().cpu()
    if not bool(wanted.isfinite().all()):
        return None
    difference = float((found - wanted).abs().max())
    if difference <= _TOLERANCE[dtype] * max(1.0, float(wanted.abs().max())):
        return None
    return f"packed and padded scores differ by {difference:.2g}"
