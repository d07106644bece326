"""What the head does not read of the last layer is not computed, and no score knows."""

import numpy as np
import pytest

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.scorers import choice
from tests.rerank_core.scorers import tiny_checkpoints
from tests.rerank_core.scorers.passes.test_graphs import Replaying, scorer_with_graphs

# Of ModernBERT, every third layer attends to everything, from the first on.
WIDE = {"num_hidden_layers": 4, "attention_bias": True}
WINDOW = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}
MODELS = {
    "modernbert": ("modernbert", None, WIDE),
    "qwen3": ("qwen3", "qwen3-reranker", {}),
    "gemma": ("gemma", "bge-reranker-v2-gemma", {}),
    "qwen2": ("qwen2", "mxbai-rerank-v2", {"num_attention_heads": 8}),
    "window": ("qwen2", "mxbai-rerank-v2", WINDOW),
}
PAIRS = [
    QueryDocumentPair(query, "the river runs through the old town " * (i % 7))
    for i in range(6)
    for query in ("how many people live here", "中国的首都")[: 1 + i % 2]
]


def saved(folder, kind, changes):
    if kind == "modernbert":
        return tiny_checkpoints.save_modernbert(folder, **changes)
    return tiny_checkpoints.save_causal(folder, kind, **changes)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    kind, template, changes = MODELS[request.param]
    folder = saved(tmp_path_factory.mktemp(kind), kind, changes)
    return {"model": str(folder), "template": template, "device": "cpu", "self_check": False,
            "max_batch_tokens": 10**6}  # fmt: skip


def whole(model, monkeypatch, **changes):
    """Load a scorer that computes all of the last layer."""
    with monkeypatch.context() as patch:
        patch.setattr(choice, "narrow_last_layer", lambda body: False)
        return load_scorer(ScorerConfig(**model, **changes))


def rows_of_last_mlp(scorer):
    rows = []
    scorer.forward.module.layers[-1].mlp.register_forward_pre_hook(
        lambda module, inputs: rows.append(inputs[0].shape[1])
    )
    return rows


def test_scores_are_those_of_the_whole_layer_in_every_way_to_pack(model, monkeypatch):
    narrow, full = load_scorer(ScorerConfig(**model)), whole(model, monkeypatch)
    rows, all_rows = rows_of_last_mlp(narrow), rows_of_last_mlp(full)
    for shares in {False, narrow.forward.shares}:
        narrow.forward.shares = full.forward.shares = shares
        rows.clear(), all_rows.clear()
        expected = full.score(PAIRS).raw
        np.testing.assert_allclose(narrow.score(PAIRS).raw, expected, rtol=0, atol=1e-5)
        assert np.ptp(expected) > 0.01
        distinct = len({(pair.query, pair.document) for pair in PAIRS})
        assert rows == [distinct + 2 * shares]
        assert all_rows[0] > 5 * rows[0]


def test_by_the_kernel_too(model, monkeypatch, packed_kernel):
    narrow = load_scorer(ScorerConfig(**model, dtype="bfloat16"))
    full = whole(model, monkeypatch, dtype="bfloat16")
    narrow.forward.kernel = full.forward.kernel = True
    expected = full.score(PAIRS).raw
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(narrow.score(PAIRS).raw, expected, rtol=0, atol=2e-2 * scale)


@pytest.mark.parametrize("changes", [{"classifier_pooling": "mean"}, {"num_hidden_layers": 3}])
def test_a_layer_whose_rows_are_all_read_or_with_a_window_stays_whole(changes, tmp_path):
    folder = saved(tmp_path, "modernbert", WIDE | changes)
    scorer = load_scorer(ScorerConfig(model=str(folder), device="cpu", self_check=False))
    rows = rows_of_last_mlp(scorer)
    tokens = scorer.score(PAIRS[:1]).tokens.sum()
    assert (scorer.info.backend, rows) == ("packed", [tokens])


def test_rows_that_are_nobodys_change_no_score(tmp_path, packed_kernel):
    folder = saved(tmp_path, "modernbert", WIDE)
    recorder = Replaying()
    scorer = scorer_with_graphs({"model": str(folder)}, recorder)
    found = scorer.score(PAIRS).raw
    scorer.forward.graphs = None
    np.testing.assert_allclose(found, scorer.score(PAIRS).raw, rtol=0, atol=2e-2)
    assert recorder.recorded == 1
