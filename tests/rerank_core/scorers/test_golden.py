"""The embedded model scores what was recorded, whatever changed around it."""

import json

import numpy as np
import pytest

from rerank_core import Candidate, QueryDocumentPair, Reranker, RerankRequest, load_scorer
from rerank_core.config import EMBEDDED_MODEL_DIR
from tools.golden_scores import CONFIG, GOLDEN, TEXTS, pairs

pytestmark = pytest.mark.seconds

RECORD = "run `python -m tools.golden_scores` and read the difference before you commit it"


@pytest.fixture(scope="module")
def scorer():
    if not (EMBEDDED_MODEL_DIR / "model.safetensors").is_file():
        pytest.skip("the embedded model's weights are not in rerank_core/embedded")
    return load_scorer(CONFIG)


@pytest.fixture(scope="module")
def golden(scorer):
    if not GOLDEN.is_file():
        pytest.skip(f"no golden scores are recorded; {RECORD}")
    found = json.loads(GOLDEN.read_text(encoding="utf-8"))
    same = found["fingerprint"] == scorer.info.fingerprint
    assert same, f"the model or what prepares its input has changed; {RECORD}"
    assert len(found["raw"]) == len(pairs()), f"the pairs have changed; {RECORD}"
    return found


@pytest.mark.parametrize("max_batch_tokens", [300, 2048])
def test_the_embedded_model_scores_what_was_recorded(golden, max_batch_tokens):
    scorer = load_scorer(CONFIG.model_copy(update={"max_batch_tokens": max_batch_tokens}))
    scores = scorer.score(pairs())
    assert scores.errors == {}
    np.testing.assert_allclose(scores.raw, golden["raw"], rtol=0, atol=1e-4)
    assert scores.tokens.tolist() == golden["tokens"]
    assert scores.truncated.tolist() == golden["truncated"]


def test_swapping_documents_swaps_their_scores(scorer):
    straight = scorer.score(pairs()).raw
    np.testing.assert_allclose(scorer.score(pairs()[::-1]).raw[::-1], straight, rtol=0, atol=1e-5)


def test_query_and_document_are_not_interchangeable(scorer):
    pair = pairs()[0]
    there, back = scorer.score([pair, QueryDocumentPair(pair.document, pair.query)]).raw
    assert there != back


@pytest.mark.parametrize("query", TEXTS)
def test_what_has_nothing_to_do_with_a_query_does_not_come_first(scorer, query):
    texts = TEXTS[query]
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(texts))
    (result,) = Reranker(scorer).rerank([RerankRequest(query, candidates)])
    assert result.ranked[0].index != len(texts) - 1
