"""Out of memory: a budget that cannot fit is cut and remembered, and every score is right."""

import contextlib

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer
from rerank_core.batching import computed


class ScarceMemory(TorchDispatchMode):
    """A CPU that has no room for a large tensor, and says so as CUDA does."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.limit_bytes = limit_bytes

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **kwargs or {})
        tensors = [leaf for leaf in _pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if any(t.numel() * t.element_size() > self.limit_bytes for t in tensors):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return out


@contextlib.contextmanager
def scarce_memory(device: str):
    """Leave room for a pass of some thousand tokens of a tiny model."""
    if device == "cpu":
        with ScarceMemory(2_000 * 128 * 4):
            yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + (24 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_budget_that_cannot_fit_is_cut_and_remembered(device, gpu_models):
    count = 400 if device == "cpu" else 20_000
    pairs = [
        QueryDocumentPair("who wrote the book", f"the river runs through town {i} " * 6)
        for i in range(count)
    ]
    dtype = "float32" if device == "cpu" else "bfloat16"
    wanted = {"dtype": dtype, "device": device, "self_check": False, **gpu_models["bert"]}
    expected = load_scorer(ScorerConfig(**wanted, max_batch_tokens=1000)).score(pairs).raw
    scorer = load_scorer(ScorerConfig(**wanted, max_batch_tokens=10**7))
    before = computed.out_of_memory
    with scarce_memory(device):
        scores = scorer.score(pairs)
        failed = computed.out_of_memory - before
        again = scorer.score(pairs[: count // 2])
        failed_again = computed.out_of_memory - before - failed
    assert (scores.errors, again.errors) == ({}, {})
    assert (failed > 0, failed_again) == (True, 0)
    tolerance = 1e-5 if device == "cpu" else 0.1
    np.testing.assert_allclose(scores.raw, expected, atol=tolerance)
    np.testing.assert_allclose(again.raw, expected[: count // 2], atol=tolerance)
