"""Where the tests of the GPU's subjects run: on the CPU with every fast run, on CUDA where it is.

What needs no device runs on both, so that no test is first executed on the day that a GPU comes.
"""

from functools import partial

import pytest
import torch
from transformers import Qwen3ForSequenceClassification

from rerank_core import QueryDocumentPair
from rerank_core.scorers import attention
from rerank_core.scorers.passes import switches
from tests.rerank_core.scorers import tiny_checkpoints
from tests.rerank_core.scorers.passes import reference_kernel

BERTS = ("bert", "roberta", "xlm_roberta", "modernbert")
CAUSAL = ("qwen3", "gemma")
TEMPLATES = {"qwen3": "qwen3-reranker", "gemma": "bge-reranker-v2-gemma"}
# More families that are packed: how each is saved, with the settings that it needs.
OTHERS = {
    **{kind: (partial(tiny_checkpoints.save_encoder, kind=kind), {})
       for kind in ("electra", "distilbert", "camembert")},
    "modernbert-mean": (partial(tiny_checkpoints.save_modernbert, classifier_pooling="mean"), {}),
    "qwen2": (partial(tiny_checkpoints.save_causal, kind="qwen2"), {"template": "mxbai-rerank-v2"}),
    "qwen3-classifier": (
        partial(tiny_checkpoints.save_causal, kind="qwen3", num_labels=1,
                model_class=Qwen3ForSequenceClassification),
        {"template": "qwen3-reranker"},
    ),
}  # fmt: skip
ON_CUDA = pytest.mark.gpu


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_CUDA)])
def device(request) -> str:
    """The device that a test is for."""
    if request.param == "cuda":
        need_cuda()
    return request.param


@pytest.fixture
def cuda() -> str:
    """A CUDA device, for what nothing else can show; such a test carries the mark gpu itself."""
    need_cuda()
    return "cuda"


def need_cuda() -> None:
    """Skip where there is no CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def packed_kernel(monkeypatch):
    """Let a CPU attend by what torch's kernel for packed rows computes."""
    monkeypatch.setattr(attention, "varlen_attn", reference_kernel.varlen)


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Have a CPU pass for a CUDA device, where what is switched on has a way to run on it."""
    monkeypatch.setattr(switches, "_is_cuda", lambda *_: True)


@pytest.fixture(scope="session")
def gpu_models(tmp_path_factory):
    """One folder per family, random weights, and the settings that it needs."""
    found = {}
    for name in BERTS:
        folder = tmp_path_factory.mktemp(name)
        found[name] = {"model": str(getattr(tiny_checkpoints, f"save_{name}")(folder))}
    for name in CAUSAL:
        folder = tiny_checkpoints.save_causal(tmp_path_factory.mktemp(name), name)
        found[name] = {"model": str(folder), "template": TEMPLATES[name]}
    for name, (save, settings) in OTHERS.items():
        found[name] = {"model": str(save(tmp_path_factory.mktemp(name)))} | settings
    return found


@pytest.fixture(scope="session")
def unequal_pairs() -> list[QueryDocumentPair]:
    """Pairs of many lengths, some far longer than ModernBERT's window of 16."""
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "the",
        "lazy",
        "dog",
        "and",
        "a",
        "river",
        "runs",
    ]
    counts = (1, 90, 3, 40, 7, 41, 2, 90, 15, 60)
    return [
        QueryDocumentPair(
            "how many people live here",
            " ".join(words[(i * 5 + n * (i + 1)) % len(words)] for n in range(count)),
        )
        for i, count in enumerate(counts)
    ]
