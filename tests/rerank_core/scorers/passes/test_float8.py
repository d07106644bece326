"""float8 with a scale a row: how near it is to what it stands for, computed on a CPU."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from rerank_core import ModelUnavailable, QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.scorers.passes import agreement
from rerank_core.scorers.passes.float8 import Float8Linear, quantise_rows, to_float8


def test_a_row_is_kept_within_its_sixteenth():
    torch.manual_seed(0)
    rows = torch.randn(40, 64) * torch.logspace(-3, 3, 40)[:, None]
    eight, scale = quantise_rows(rows)
    relative = (eight.float() * scale - rows).abs().amax(1) / rows.abs().amax(1)
    assert relative.max() < 1 / 16


def test_a_layer_gives_what_the_layer_gave_and_in_float32_rounds_weights_alone():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32).requires_grad_(False)
    rows = torch.randn(3, 5, 64)
    changed = Float8Linear(layer)
    exact = layer(rows)
    found = changed(rows.bfloat16())
    assert (found.shape, found.dtype) == ((3, 5, 32), torch.bfloat16)
    error, weights_alone = (
        float((one - exact).square().mean().sqrt()) for one in (found, changed(rows))
    )
    assert 0 < weights_alone < error < 0.05


def test_a_row_does_not_depend_on_those_beside_it():
    torch.manual_seed(0)
    changed = Float8Linear(torch.nn.Linear(64, 32))
    rows = torch.randn(7, 64).bfloat16()
    torch.testing.assert_close(changed(rows)[2:3], changed(rows[2:3]))


def test_layers_that_tensor_cores_cannot_take_stay():
    body = torch.nn.ModuleDict({"fits": torch.nn.Linear(32, 16), "not": torch.nn.Linear(32, 3)})
    to_float8(body)
    assert [type(layer) for layer in body.values()] == [Float8Linear, torch.nn.Linear]


@pytest.mark.seconds
def test_the_embedded_models_order_is_kept(as_on_cuda):
    texts = [
        getattr(str, name).__doc__[:200]
        for name in sorted(vars(str))
        if isinstance(getattr(str, name).__doc__, str)
    ]
    pairs = [QueryDocumentPair("how to remove spaces around a string", text) for text in texts]
    exact, found = (
        load_scorer(ScorerConfig(device="cpu", dtype=dtype)).score(pairs).raw
        for dtype in ("float32", "float8")
    )
    assert spearmanr(exact, found).statistic > 0.99
    assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_what_it_changes_too_much_is_refused(as_on_cuda, gpu_models, monkeypatch):
    monkeypatch.setitem(agreement._TOLERANCE, "float8", 0.0)
    with pytest.raises(ModelUnavailable, match=r"does not bear float8 .*; use dtype bfloat16$"):
        load_scorer(
            ScorerConfig(**gpu_models["bert"], device="cpu", dtype="float8", self_check=False)
        )
