"""dtype int8: what is loaded, how near it is to float32, and where it is refused."""

import logging
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from transformers import AutoModel

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.int8 import instructions
from rerank_core.scorers.int8.bert import QuantizedLayers
from rerank_core.scorers.int8.loading import refuse_int8
from rerank_core.scorers.int8.weights import QuantizedLinear
from rerank_core.scorers.passes import agreement
from tests.rerank_core.scorers.conftest import random_config
from tests.rerank_core.scorers.tiny_checkpoints import save_bert, save_causal

pytestmark = pytest.mark.seconds

QUESTIONS = ("how to remove spaces around a string", "怎样把 JSON 文本变成对象")
PAIRS = [
    QueryDocumentPair(question, text[:300])
    for question in QUESTIONS
    for owner in (str, list)
    for name in sorted(vars(owner))
    if not name.startswith("_") and (text := getattr(getattr(owner, name), "__doc__", None))
]


@pytest.fixture(scope="module")
def both(trained_model):
    return [load_scorer(ScorerConfig(model=trained_model, dtype=d)) for d in ("float32", "int8")]


def held_bytes(module: torch.nn.Module) -> int:
    """Bytes of all weights, those of compiled layers among them."""
    seen = {tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values()}
    for part in module.modules():
        layers = [] if not isinstance(part, QuantizedLayers) else part._layers
        waiting = [value for layer in layers for value in vars(layer).values()]
        while waiting:
            value = waiting.pop()
            if isinstance(value, tuple):
                waiting += value
            elif isinstance(value, np.ndarray):
                seen[value.ctypes.data] = value.nbytes
    return sum(seen.values())


def test_int8_keeps_the_order_of_float32(both):
    exact, rounded = (scorer.score(PAIRS).raw for scorer in both)
    for half in (slice(0, len(PAIRS) // 2), slice(len(PAIRS) // 2, None)):
        assert spearmanr(exact[half], rounded[half])[0] > 0.99
    assert 0 < np.abs(exact - rounded).max() < 0.5


def test_int8_takes_a_third_of_the_memory_of_float32_at_most(both, trained_model):
    rounded = held_bytes(both[1].forward.module)
    folder = ScorerConfig(model=trained_model).model_dir
    exact = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    weights = sum(weight.nbytes for weight in exact.parameters())
    assert 0.2 * weights < rounded < 0.35 * weights


def test_what_is_not_bert_has_its_linear_layers_replaced(tmp_path):
    folder = save_causal(tmp_path / "qwen3", "qwen3")
    config = random_config(model=str(folder), template="qwen3-reranker", device="cpu", dtype="int8")
    body = load_scorer(config).forward.module
    kinds = {type(part) for part in body.modules()}
    assert QuantizedLinear in kinds
    assert kinds.isdisjoint({torch.nn.Linear, torch.nn.Embedding})


def test_threads_and_company_change_no_score(both, monkeypatch):
    together = both[1].score(PAIRS).raw
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    lots = [both[1].score(PAIRS[first : first + 7]).raw for first in range(0, len(PAIRS), 7)]
    np.testing.assert_allclose(np.concatenate(lots), together, rtol=0, atol=1e-5)


def test_what_is_not_a_number_is_no_score(tmp_path):
    folder = save_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.1.intermediate.dense.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scores = load_scorer(random_config(model=str(folder), dtype="int8")).score(PAIRS[:3])
    assert sorted(scores.errors) == [0, 1, 2]
    assert not np.isfinite(scores.raw).any()


def refusal(**options) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        load_scorer(random_config(device="cpu", dtype="int8", **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_packed_is_refused(tiny_models):
    message = refusal(model=str(tiny_models["deberta"]))
    assert "cannot be scored packed" in message
    assert message.endswith("use dtype float32")
    assert "use backend auto" in refusal(model=str(tiny_models["bert"]), backend="cross_encoder")


def test_a_model_that_does_not_bear_it_is_refused(tiny_models, monkeypatch):
    monkeypatch.setitem(agreement._TOLERANCE, "int8", 0.0)
    assert "does not bear int8 (scores differ by" in refusal(model=str(tiny_models["bert"]))


def test_a_gpu_is_refused():
    with pytest.raises(ModelUnavailable, match="use dtype bfloat16, or device cpu"):
        refuse_int8(torch.device("cuda"))


def test_without_numba_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerank_core.scorers.int8.instructions", None)
    assert "pip install 'ray-rerank[int8]'" in refusal(model="embedded")


def test_a_cpu_without_its_instructions_is_warned_and_has_a_fingerprint_of_its_own(
    monkeypatch, caplog
):
    config = ScorerConfig(dtype="int8")
    here = config.fingerprint()
    shape = instructions.SHAPE._replace(name="elsewhere", vnni=False)
    monkeypatch.setattr(instructions, "SHAPE", shape)
    with caplog.at_level(logging.WARNING):
        refuse_int8(torch.device("cpu"))
    assert "this CPU (elsewhere) has no instructions for products of bytes" in caplog.text
    assert config.fingerprint() != here
