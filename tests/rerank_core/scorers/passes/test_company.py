"""A pair's score does not depend on who shares its pass."""

import inspect

import numpy as np
import pytest
import torch

from rerank_core import ScorerConfig, load_scorer
from rerank_core.scorers.attention import Segments, segment_attention
from tests.rerank_core.scorers.passes.conftest import BERTS, CAUSAL


@pytest.mark.parametrize("family", [*BERTS, *CAUSAL])
def test_a_pair_scores_the_same_alone_and_in_company(family, device, gpu_models, unequal_pairs):
    dtype = "bfloat16" if device == "cuda" else "float32"
    scorer = load_scorer(
        ScorerConfig(**gpu_models[family], dtype=dtype, device=device, self_check=False)
    )
    together = scorer.score(unequal_pairs).raw
    alone = [scorer.score([pair]).raw[0] for pair in unequal_pairs]
    # Products of other shapes may add in another order; in float32 that is the last digits.
    scale = max(1.0, float(np.abs(together).max()))
    np.testing.assert_allclose(alone, together, atol=(3e-2 if device == "cuda" else 1e-5) * scale)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernels_own_result_is_bitwise_the_same_in_any_company(cuda, dtype):
    from torch.nn.attention.varlen import varlen_attn

    if "num_splits" not in inspect.signature(varlen_attn).parameters:
        pytest.skip("this torch's varlen_attn has no num_splits, which is what promises it")
    torch.manual_seed(0)
    lengths = (700, 3, 96, 1500)
    parts = [torch.randn(1, 4, sum(lengths), 64, device=cuda, dtype=dtype) for _ in range(3)]
    together = attended(parts, lengths)
    start = 0
    for length in lengths:
        own = [part[:, :, start : start + length] for part in parts]
        assert torch.equal(attended(own, (length,)), together[:, start : start + length])
        start += length


def attended(parts, lengths):
    bounds = torch.tensor((0, *lengths)).cumsum(0).to("cuda", torch.int32)
    return segment_attention(
        torch.nn.Module(), *parts, segments=Segments.of(lengths, bounds, kernel=True)
    )[0]
