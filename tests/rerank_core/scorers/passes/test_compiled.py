"""The compiled body: one trace for passes of any shape, and the scores of the plain one."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from rerank_core import ScorerConfig, load_scorer
from rerank_core.scorers import choice
from rerank_core.scorers.encoder import items_of
from rerank_core.scorers.heads import one_logit
from tests.rerank_core.scorers.passes.conftest import BERTS

META = torch.device("meta")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Count from nothing."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def on_meta(settings):
    scorer = load_scorer(ScorerConfig(**settings, device="cpu", dtype="bfloat16", self_check=False))
    scorer.forward.to(META)
    scorer.forward.kernel = True
    return scorer


@pytest.mark.seconds
@pytest.mark.parametrize("family", [*BERTS, "qwen3"])
def test_passes_of_any_number_and_length_share_a_few_traces_without_breaks(
    family, gpu_models, unequal_pairs
):
    scorer = on_meta(gpu_models[family])
    forward = scorer.forward
    forward.compiled = torch.compile(forward.module, dynamic=True, backend="eager", fullgraph=True)
    items = items_of(scorer.prepare(unequal_pairs))
    for count in (2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 5):
        for first in (0, 1):
            forward(items[first : first + count])
    assert 1 <= counters["stats"]["unique_graphs"] <= 3


@pytest.mark.seconds
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs with g++")
# Of torch's own modules, when it first compiles for real.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_the_compiled_body_gives_the_plain_ones_scores(
    family, gpu_models, unequal_pairs, monkeypatch
):
    # A GPU's body has torch's own linear layers.
    monkeypatch.setattr(choice, "optimize", lambda body: None)
    scorer = load_scorer(ScorerConfig(**gpu_models[family], device="cpu", self_check=False))
    forward = scorer.forward
    expected = scorer.score(unequal_pairs[:3]).raw
    compiled = torch.compile(forward.module, dynamic=True)

    def launch(batch):
        row = forward._rows.pack(batch, share=forward.shares)
        parts = [torch.tensor(part) for part in row.arrays()]
        with torch.inference_mode():
            logits = forward._compute(compiled, *row.arguments(parts, kernel=False))
            return one_logit(logits, forward.positive)

    found = launch(items_of(scorer.prepare(unequal_pairs[:3])))
    assert counters["stats"]["unique_graphs"] >= 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
