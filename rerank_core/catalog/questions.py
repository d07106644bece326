"""Questions whose answer is obvious to any reranker that knows English."""

from __future__ import annotations

from rerank_core.types import QueryDocumentPair

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
