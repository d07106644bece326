"""What a model is asked before it serves: questions whose answer is obvious, and probes.

It does not know how a scorer computes.
"""

from __future__ import annotations

from rerank_core.errors import ModelUnavailable
from rerank_core.types import QueryDocumentPair, Scorer

# For each query a relevant and an irrelevant document; the first must come out above the other.
OBVIOUS = (
    (
        "What is the capital of France?",
        "Paris is the capital of France.",
        "Bananas are yellow and rich in potassium.",
    ),
    (
        "How do plants make their food?",
        "Plants make their food from light, water and carbon dioxide; this is photosynthesis.",
        "The last train to the airport leaves at half past nine.",
    ),
)


def obvious_pairs() -> list[QueryDocumentPair]:
    """Return the pairs of `OBVIOUS`, relevant and irrelevant in turn."""
    return [
        QueryDocumentPair(query, document)
        for query, *documents in OBVIOUS
        for document in documents
    ]


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

    One stands twice, with query and document swapped: a model that mixes them up is seen. Two have
    the same query, as what a query's pairs share may be computed once.
    """
    long = "The bridge was finished in 1932, and opened by the mayor. " * (3 + (window or 0) // 6)
    query, answer = "how many people live in the town", "About three million live there."
    texts = [(query, answer), (answer, query), ("what", long), ("中国的首都是哪里?", "北京。" * 9),
             (query, "A river runs through the old town, which has no bridge.")]  # fmt: skip
    return [QueryDocumentPair(query, document) for query, document in texts]
