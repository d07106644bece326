"""What ships off is refused where it cannot be honoured, and compared before it serves."""

import numpy as np
import pytest
import torch

from rerank_core import ModelUnavailable, ScorerConfig, load_scorer
from rerank_core.catalog.resolve import resolve
from rerank_core.scorers.device import products_in_tf32
from rerank_core.scorers.passes import switches
from tests.rerank_core.scorers.passes.conftest import BERTS, CAUSAL

SETTINGS = [{"dtype": "tf32"}, {"dtype": "float8"}, {"graphs": True}, {"compile": True}]
FIXES = ["use dtype float32", "use dtype bfloat16", "leave `graphs` out", "leave `compile` out"]


def config(models, family="bert", **settings):
    return ScorerConfig(**models[family], **({"device": "cpu", "self_check": False} | settings))


@pytest.mark.parametrize(("settings", "fix"), list(zip(SETTINGS, FIXES, strict=True)))
def test_a_cpu_refuses_it_and_says_what_to_do(settings, fix, gpu_models):
    with pytest.raises(ModelUnavailable, match="is for CUDA devices of compute") as caught:
        load_scorer(config(gpu_models, **settings))
    assert str(caught.value).endswith(f"and cpu is none; {fix}")


@pytest.mark.parametrize(
    ("settings", "capability", "hip", "refused"),
    [
        ({"dtype": "tf32"}, (7, 5), None, True),
        ({"dtype": "tf32"}, (8, 0), None, False),
        ({"dtype": "float8"}, (8, 6), None, True),
        ({"dtype": "float8"}, (9, 0), None, False),
        ({"dtype": "float8"}, (9, 4), "6.4", True),
        ({"graphs": True, "dtype": "bfloat16"}, (8, 0), None, False),
        ({"compile": True, "dtype": "bfloat16"}, (7, 5), None, True),
    ],
)
def test_a_gpu_is_taken_by_its_age(settings, capability, hip, refused, gpu_models, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    resolved = resolve(config(gpu_models, **settings))
    try:
        switches.refuse_settings(resolved, torch.device("cuda"))
    except ModelUnavailable:
        assert refused
    else:
        assert not refused


@pytest.mark.parametrize("settings", [*SETTINGS, {"dtype": "int8"}])
def test_it_needs_packed_scoring(settings, gpu_models, as_on_cuda):
    with pytest.raises(ModelUnavailable, match="is for packed scoring; use backend auto, or "):
        load_scorer(config(gpu_models, backend="cross_encoder", **settings))


@pytest.mark.parametrize("settings", [{"graphs": True}, {"compile": True}])
def test_graphs_and_compile_need_the_kernel(settings, gpu_models, as_on_cuda):
    with pytest.raises(ModelUnavailable, match="needs torch's kernel for packed rows") as caught:
        load_scorer(config(gpu_models, **settings))
    assert "is scored in float32: use dtype bfloat16 or float16" in str(caught.value)


def test_graphs_are_refused_for_language_models(gpu_models, as_on_cuda):
    with pytest.raises(ModelUnavailable, match=r"share their prompts.* leave `graphs` out"):
        load_scorer(config(gpu_models, "qwen3", graphs=True))


def test_what_cannot_be_packed_is_refused_with_the_settings_own_fix(tiny_models, as_on_cuda):
    wanted = {"model": str(tiny_models["deberta"]), "device": "cpu", "self_check": False}
    with pytest.raises(ModelUnavailable, match=r"cannot be scored packed.*; use dtype float32$"):
        load_scorer(ScorerConfig(**wanted, dtype="tf32"))


def test_none_of_it_is_on_by_default():
    fresh = ScorerConfig()
    assert (fresh.dtype, fresh.graphs, fresh.compile) == ("float32", False, False)


def test_only_precisions_change_the_fingerprint(gpu_models):
    def fingerprint(**settings):
        return config(gpu_models, **settings).fingerprint()

    dtypes = ("float32", "bfloat16", "float16", "tf32", "float8")
    assert len({fingerprint(dtype=dtype) for dtype in dtypes}) == len(dtypes)
    assert fingerprint(graphs=True, compile=True) == fingerprint()


@pytest.mark.parametrize("family", [*BERTS, *CAUSAL])
def test_tf32_is_for_the_bodys_products_and_for_nobody_elses(
    family, gpu_models, unequal_pairs, as_on_cuda
):
    scorer = load_scorer(config(gpu_models, family, dtype="tf32"))
    seen = {"body": [], "head": []}
    forward = scorer.forward
    products = torch.backends.cuda.matmul

    def note(where):
        return lambda *_: seen[where].append(products.allow_tf32)

    forward.module.register_forward_hook(note("body"))
    forward._head.register_forward_pre_hook(note("head"))
    scorer.score(unequal_pairs)
    with forward.exactly():
        scorer.score(unequal_pairs)
    assert seen == {"body": [True, False], "head": [False, False]}
    assert not products.allow_tf32


def test_tf32_ends_with_an_error_too():
    with pytest.raises(ValueError, match="in the body"), products_in_tf32():
        raise ValueError("in the body")
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["tf32", "float8"])
@pytest.mark.parametrize("family", [*BERTS, "qwen3"])
def test_on_a_gpu_precisions_stay_near_float32(family, dtype, cuda, gpu_models, unequal_pairs):
    exact, found = (
        load_scorer(config(gpu_models, family, device=cuda, dtype=one)).score(unequal_pairs).raw
        for one in ("float32", dtype)
    )
    bound = {"tf32": 5e-3, "float8": 2e-1}[dtype] * max(1, np.abs(exact).max())
    np.testing.assert_allclose(found, exact, rtol=0, atol=bound)
