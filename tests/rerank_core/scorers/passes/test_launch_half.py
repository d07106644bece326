"""A pass is launched without waiting for the device: shown on torch's `meta` device, with a count.

The kernel's call is in it; one copy goes in; the operators are counted and may only become fewer.
"""

import numpy as np
import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from rerank_core import ScorerConfig, load_scorer
from rerank_core.scorers.attention import plug_attention
from rerank_core.scorers.body import PackedForward, body_of
from rerank_core.scorers.device import set_precision
from rerank_core.scorers.encoder import TokenizedPair, items_of
from rerank_core.scorers.heads import OwnHead, one_row
from rerank_core.scorers.passes.bert_layers import flatten_layers, fold_biases
from rerank_core.scorers.passes.rows import Rows
from tests.rerank_core.scorers.passes.conftest import BERTS, CAUSAL, OTHERS
from tests.rerank_core.scorers.passes.operations import Operations

META = torch.device("meta")


def on_meta(scorer):
    """Take a scorer's forward to the meta device, as it would be moved to a GPU."""
    scorer.forward.to(META)
    scorer.forward.kernel = True
    return scorer.forward


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", [*BERTS, *CAUSAL, *OTHERS])
def test_every_family_launches_without_waiting_and_with_one_copy(
    family, dtype, gpu_models, unequal_pairs
):
    scorer = load_scorer(
        ScorerConfig(**gpu_models[family], dtype=dtype, device="cpu", self_check=False)
    )
    items = items_of(scorer.prepare(unequal_pairs))
    forward = on_meta(scorer)
    with Operations() as seen:
        logits = forward(items)
    assert (logits.device.type, logits.dtype, tuple(logits.shape)) == (
        "meta", torch.float32, (len(items),)
    )  # fmt: skip
    assert len(seen.crossings) == 1, seen.crossings
    layers = forward.module.config.num_hidden_layers
    assert seen.names["_varlen_attn"] == layers, "one call of the kernel in each"


@pytest.mark.parametrize("family", [*BERTS, *CAUSAL, *OTHERS])
def test_the_padded_reference_leaves_nothing_on_a_packed_body(family, gpu_models):
    """Its hook stayed there, and copied every hidden state to float32 in each pass."""
    scorer = load_scorer(
        ScorerConfig(**gpu_models[family], dtype="bfloat16", device="cpu", self_check=False)
    )
    assert not scorer.forward.padded
    assert [m for m in scorer.forward.module.modules() if m._forward_hooks] == []


@pytest.mark.parametrize(
    "fetch",
    [
        lambda logits: logits[0].item(),
        lambda logits: logits.cpu(),
        lambda logits: logits[logits > 0].shape,
        lambda logits: bool(logits.isfinite().all()),
        lambda logits: logits.nonzero(),
    ],
)
def test_a_launch_that_waits_for_the_device_would_be_seen(fetch):
    with pytest.raises((RuntimeError, NotImplementedError)), Operations():
        fetch(torch.zeros(4, device=META))


@pytest.mark.parametrize(
    "copy",
    [
        lambda row: torch.tensor([1, 2], device=META),
        lambda row: torch.ones(4).to(META),
        lambda row: row.copy_(torch.ones(4)),
        lambda row: row[torch.tensor([0, 1])],
    ],
)
def test_a_copy_to_the_device_would_be_counted(copy):
    with Operations() as seen:
        copy(torch.zeros(4, device=META))
    assert len(seen.crossings) == 1


def bge_reranker_v2_m3() -> PackedForward:
    """The real shape without weights."""
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=1,
        pad_token_id=1,
    )
    with META:
        model = XLMRobertaForSequenceClassification(config).eval()
    plug_attention(model)
    body = body_of(model)
    assert flatten_layers(body)
    fold_biases(body)
    set_precision(body, torch.bfloat16)
    head = OwnHead(model, body)
    forward = PackedForward(body, head, one_row, Rows(None, 2, 1), None)
    forward.to(META)
    forward.kernel = True
    return forward


def test_a_pass_of_bge_reranker_v2_m3_asks_for_no_more_operators_than_it_did():
    batch = [TokenizedPair(np.arange(5, 12), np.arange(5, n), False) for n in (60, 20, 90)]
    forward = bge_reranker_v2_m3()
    with Operations() as seen:
        forward(batch)
    assert seen.crossings == ["to"]
    # Each costs the host some microseconds. Fewer is better: lower the figures with the code.
    assert (seen.dispatches, seen.kernels) == (304, 210)
