"""Torch's kernel for packed rows is what runs where it can, and what cannot run is replaced."""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rerank_core import ScorerConfig, load_scorer
from tests.rerank_core.scorers.passes.conftest import BERTS, CAUSAL


class Attentions(TorchDispatchMode):
    """Counts the attention operators that run, and refuses those that it is told to."""

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.refuse, self.kernel, self.dense = refuse, 0, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator)
        if any(part in name for part in self.refuse):
            raise RuntimeError(f"{name}: FlashAttention only supports Ampere GPUs or newer")
        self.kernel += "_varlen_attn" in name
        self.dense += "scaled_dot_product" in name or "_attention_forward" in name
        return operator(*args, **kwargs or {})


def config(gpu_models, family, device, **changes):
    wanted = {"dtype": "bfloat16", "device": device, "self_check": False}
    return ScorerConfig(**gpu_models[family], **(wanted | changes))


@pytest.mark.gpu
@pytest.mark.parametrize("family", [*BERTS, *CAUSAL])
def test_in_half_precision_the_kernel_runs_and_nothing_else_attends(
    family, cuda, gpu_models, unequal_pairs
):
    scorer = load_scorer(config(gpu_models, family, cuda))
    with Attentions() as seen:
        scorer.score(unequal_pairs)
    assert scorer.forward.kernel
    assert (seen.kernel > 0, seen.dense) == (True, 0)


def test_in_float32_runs_are_attended_to(device, gpu_models, unequal_pairs):
    scorer = load_scorer(config(gpu_models, "bert", device, dtype="float32"))
    with Attentions() as seen:
        scorer.score(unequal_pairs)
    assert not scorer.forward.kernel
    assert (seen.kernel, seen.dense > 0) == (0, True)


@pytest.mark.gpu
@pytest.mark.parametrize("family", [*BERTS, "qwen3"])
def test_an_old_gpu_is_served_without_the_kernel(
    family, cuda, gpu_models, unequal_pairs, monkeypatch
):
    expected = load_scorer(config(gpu_models, family, cuda)).score(unequal_pairs).raw
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    scorer = load_scorer(config(gpu_models, family, cuda))
    scores = scorer.score(unequal_pairs)
    assert (scorer.forward.kernel, scores.errors) == (False, {})
    np.testing.assert_allclose(scores.raw, expected, atol=0.1 * max(1, np.abs(expected).max()))


@pytest.mark.gpu
def test_a_kernel_that_refuses_is_replaced_by_runs_and_said_in_one_line(
    cuda, gpu_models, unequal_pairs, caplog
):
    with Attentions(refuse=("_varlen_attn",)):
        scorer = load_scorer(config(gpu_models, "bert", cuda))
    lines = [record.message for record in caplog.records if "kernel" in record.message]
    assert (scorer.info.backend, scorer.forward.kernel, len(lines)) == ("packed", False, 1)
    assert scorer.score(unequal_pairs).errors == {}


def test_where_packed_rows_cannot_be_attended_to_at_all_it_is_scored_padded(
    device, gpu_models, unequal_pairs, caplog
):
    # A padded batch attends with a mask, runs of equal lengths without one.
    with refused_without_mask():
        scorer = load_scorer(config(gpu_models, "xlm_roberta", device, dtype="float32"))
    assert scorer.info.backend == "cross_encoder"
    assert any("is scored padded" in record.message for record in caplog.records)
    assert scorer.score(unequal_pairs).errors == {}


@contextlib.contextmanager
def refused_without_mask():
    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            mask = args[3] if len(args) > 3 else (kwargs or {}).get("attn_mask")
            if "scaled_dot_product_attention" in str(operator) and mask is None:
                raise RuntimeError("no kernel for this device")
            return operator(*args, **kwargs or {})

    with Refuse():
        yield
