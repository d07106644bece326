"""Scores are those of `score`, whoever tokenised the pairs and whose else are in the pass."""

import numpy as np
import pytest

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.types import preparing

pytestmark = pytest.mark.seconds

LONG = "the capital of a country is where its government sits. " * 40
PAIRS = [
    QueryDocumentPair("capital of China", "Beijing is the capital of China."),
    QueryDocumentPair("capital of China", LONG),
    QueryDocumentPair("capital of China", "Beijing is the capital of China."),
    QueryDocumentPair("fruit", "Bananas are yellow.", max_tokens=2),
    QueryDocumentPair("fruit", "", max_document_tokens=3),
]


@pytest.mark.parametrize("policy", [{}, {"long_documents": "split", "passage_tokens": 48}])
def test_scores_of_prepared_pairs_are_those_of_the_pairs(policy):
    scorer = load_scorer(ScorerConfig(model="embedded", max_length=128, **policy))
    expected = scorer.score(PAIRS)
    # Two callers, in one pass.
    found = scorer.run([*scorer.prepare(PAIRS[:2]), *scorer.prepare(PAIRS[2:])])
    np.testing.assert_allclose(found.raw, expected.raw, rtol=0, atol=1e-5)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.truncated.tolist() == expected.truncated.tolist()
    assert (found.errors, found.passages) == (expected.errors, expected.passages)
    assert found.fingerprint == expected.fingerprint
    assert found.errors or policy or found.truncated.any()


def test_equal_pairs_of_one_caller_are_one_item():
    scorer = load_scorer(ScorerConfig(model="embedded"))
    prepared = scorer.prepare(PAIRS[:3])
    assert prepared[0] is prepared[2]
    seen = []
    run = scorer.runner.run
    scorer.runner.run = lambda items: seen.append(len(items)) or run(items)
    scorer.run(prepared)
    assert seen == [2]


def test_on_a_cpu_pairs_are_tokenised_where_they_are_scored():
    assert preparing(load_scorer(ScorerConfig(model="embedded"))) is None
