"""The questions that a reranker must get right before it serves."""

from rerank_core.catalog.checks import obvious_pairs


def test_obvious_pairs_come_in_turn():
    assert [pair.query for pair in obvious_pairs()] == [
        "What is the capital of France?",
        "What is the capital of France?",
        "How do plants make their food?",
        "How do plants make their food?",
    ]
