"""BERT's layers with their biases folded away: the same function."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rerank_core import ScorerConfig, load_scorer
from rerank_core.scorers.attention import plug_attention
from rerank_core.scorers.body import PackedForward, body_of
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.scorers.heads import OwnHead, one_row
from rerank_core.scorers.passes.bert_layers import flatten_layers, fold_biases
from rerank_core.scorers.passes.rows import Rows
from tests.rerank_core.scorers import tiny_checkpoints
from tests.rerank_core.scorers.passes.test_precision import TOLERANCE


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm_roberta"])
def checkpoint(request, tmp_path_factory):
    """A model whose biases and norms are far from those that a fresh one has."""
    folder = getattr(tiny_checkpoints, f"save_{request.param}")(tmp_path_factory.mktemp("biased"))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            weight.data += torch.randn(weight.shape) / 2
    model.save_pretrained(folder)
    return str(folder)


def packed(checkpoint, fold):
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    plug_attention(model)
    body = body_of(model)
    assert flatten_layers(body)
    if fold:
        fold_biases(body)
    return PackedForward(body, OwnHead(model, body), one_row, Rows(None, 2, 1), None)


def test_folded_biases_change_nothing_but_last_digits(checkpoint):
    batch = [TokenizedPair(np.arange(5, 9), np.arange(5, n), False) for n in (60, 20, 90)]
    plain, folded = (packed(checkpoint, fold)(batch) for fold in (False, True))
    np.testing.assert_allclose(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert plain.std() > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_they_are_folded_and_scores_are_those_of_float32(
    checkpoint, dtype, unequal_pairs
):
    exact, half = (
        load_scorer(ScorerConfig(model=checkpoint, device="cpu", dtype=one, self_check=False))
        for one in ("float32", dtype)
    )
    assert [layer.folded for layer in half.forward.module.encoder.layers] == [True] * 3
    expected = exact.score(unequal_pairs).raw
    error = np.abs(half.score(unequal_pairs).raw - expected).max()
    assert error <= TOLERANCE[dtype] * max(1, np.abs(expected).max())
