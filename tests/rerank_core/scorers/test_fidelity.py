"""Packed scores are the reference's scores: sentence-transformers on the same checkpoint."""

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.ranking import activate
from rerank_core.scorers import attention
from tests.rerank_core.scorers.conftest import FAMILIES, random_config

pytestmark = pytest.mark.seconds

QUERIES = ("how many people live here", "中国的首都是哪里?", "q")
DOCUMENTS = (
    "Beijing is the capital of China; Paris is the capital of France.",
    "北京是中国的政治中心和首都。" * 3,
    "苹果是一种水果,富含维生素。 apple 12345 !?",
    "",
    "x",
    "the old town and the river " * 100,
    "the old town and the river " * 4,
)
PAIRS = [QueryDocumentPair(query, document) for query in QUERIES for document in DOCUMENTS]


def reference(folder: str, max_length: int, pairs=PAIRS) -> np.ndarray:
    options = {"dtype": torch.float32}
    model = CrossEncoder(folder, device="cpu", max_length=max_length, model_kwargs=options)
    return model.predict([tuple(pair) for pair in pairs], activation_fn=torch.nn.Identity())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_batch_tokens", [64, 2048])
def test_packed_scores_equal_the_reference(tiny_models, family, max_batch_tokens):
    folder = str(tiny_models[family])
    scorer = load_scorer(
        random_config(model=folder, device="cpu", max_batch_tokens=max_batch_tokens)
    )
    scores = scorer.score(PAIRS)
    expected = reference(folder, scorer.info.max_length)
    assert scorer.info.backend == "packed"
    assert scores.errors == {}
    np.testing.assert_allclose(scores.raw, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.01  # scores that are all alike would prove nothing


def test_the_trained_model_scores_and_orders_as_the_reference(trained_model):
    config = ScorerConfig(model=trained_model, device="cpu")
    scorer = load_scorer(config)
    scores = scorer.score(PAIRS)
    expected = reference(str(config.model_dir), scorer.info.max_length)
    # A trained model's logits reach 10; float32 holds them to about 1e-6 of their size.
    np.testing.assert_allclose(scores.raw, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        activate(scores.raw, "sigmoid"), activate(expected, "sigmoid"), rtol=0, atol=1e-5
    )
    assert list(np.argsort(-scores.raw)) == list(np.argsort(-expected))


def test_what_cannot_be_packed_is_padded(tiny_models, caplog):
    folder = str(tiny_models["deberta"])
    scorer = load_scorer(random_config(model=folder, device="cpu"))
    expected = reference(folder, scorer.info.max_length)
    assert scorer.info.backend == "cross_encoder"
    np.testing.assert_allclose(scorer.score(PAIRS).raw, expected, rtol=0, atol=1e-5)
    assert [record.message for record in caplog.records if "padded" in record.message] == [
        f"{folder} is scored padded: DebertaV2ForSequenceClassification has an attention of its own"
    ]


def test_a_wrong_window_is_seen_while_loading(tiny_models, monkeypatch, caplog):
    """Probes were shorter than any window: a planted one of 3 tokens served packed."""
    right = attention._mask

    def narrow(length, known, how, device):
        planted = None if how.sliding_window is None else 3
        return right(length, known, how._replace(sliding_window=planted), device)

    monkeypatch.setattr(attention, "_mask", narrow)
    scorer = load_scorer(random_config(model=str(tiny_models["modernbert"]), device="cpu"))
    assert scorer.info.backend == "cross_encoder"
    assert "scores differ by" in caplog.text


def test_both_backends_count_and_cut_the_same_tokens(tiny_models):
    folder = str(tiny_models["xlm_roberta"])
    packed, padded = (
        load_scorer(random_config(model=folder, device="cpu", backend=backend)).score(PAIRS)
        for backend in ("packed", "cross_encoder")
    )
    np.testing.assert_allclose(packed.raw, padded.raw, rtol=0, atol=1e-5)
    assert packed.tokens.tolist() == padded.tokens.tolist()
    assert packed.truncated.tolist() == padded.truncated.tolist()


@pytest.mark.parametrize("family", ["bert", "deberta"])
def test_a_classifier_reads_an_instruction_before_the_query(tiny_models, family):
    scorer = load_scorer(random_config(model=str(tiny_models[family]), device="cpu"))
    pairs = [QueryDocumentPair("q", "d", instruction="Judge."), QueryDocumentPair("Judge.\nq", "d")]
    first, second = scorer.score(pairs).raw
    assert first == pytest.approx(second, abs=1e-6)


def test_a_long_query_keeps_its_share_and_the_document_is_cut(tiny_models):
    config = random_config(
        model=str(tiny_models["bert"]), device="cpu", max_length=40, max_query_tokens=30
    )
    query, document = "river " * 50, "town " * 50
    scores = load_scorer(config).score(
        [QueryDocumentPair(query, document), QueryDocumentPair("river " * 30, "town " * 7)]
    )
    assert scores.tokens.tolist() == [40, 40]
    assert scores.truncated.tolist() == [True, False]
    assert scores.raw[0] == pytest.approx(scores.raw[1], abs=1e-6)
