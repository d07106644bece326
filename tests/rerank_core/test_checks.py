"""The questions that a reranker must get right before it serves."""

from rerank_core.catalog.checks import obvious_pairs, probe_pairs


def test_obvious_pairs_come_in_turn():
    assert [pair.query for pair in obvious_pairs()] == [
        "What is the capital of France?",
        "What is the capital of France?",
        "How do plants make their food?",
        "How do plants make their food?",
    ]


def test_probes_are_of_unequal_lengths_one_beyond_the_window_one_with_its_sides_swapped():
    pairs = probe_pairs(128)
    words = [len(pair.query.split()) + len(pair.document.split()) for pair in pairs]
    assert max(words) > 128
    assert len({len(pair.query) + len(pair.document) for pair in pairs}) == len(pairs) - 1
    assert (pairs[0].query, pairs[0].document) == (pairs[1].document, pairs[1].query)
