"""Scores that overflow are rescued; an error after which a device gives only errors is fatal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rerank_core import ModelUnavailable, ScorerConfig, load_scorer
from rerank_core.scorers.encoder import TokenizedPair
from tests.rerank_core.scorers import tiny_checkpoints

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def overflowing_model(tmp_path_factory) -> str:
    """A BERT whose feed-forward products are beyond float16's 65,504, not float32's."""
    folder = tiny_checkpoints.save_bert(tmp_path_factory.mktemp("overflow"))
    weights = load_file(folder / "model.safetensors")
    for part in ("intermediate", "output"):
        weights[f"bert.encoder.layer.0.{part}.dense.weight"] *= 1000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_scores_that_overflow_are_those_of_float32(device, overflowing_model, unequal_pairs):
    wanted = {"model": overflowing_model, "self_check": False}
    exact = load_scorer(ScorerConfig(**wanted, device="cpu")).score(unequal_pairs).raw
    scores = load_scorer(ScorerConfig(**wanted, device=device, dtype="float16")).score(
        unequal_pairs
    )
    assert scores.errors == {}
    np.testing.assert_allclose(scores.raw, exact, atol=2e-3 * max(1, np.abs(exact).max()))


CRASH = """
import sys
from tests.rerank_core.scorers.passes.test_faults import crash
print(crash(sys.argv[1], "cuda"))
"""


def crash(model: str, device: str) -> str:
    """Score a pair with a token that the model does not have, between two good ones."""
    scorer = load_scorer(ScorerConfig(model=model, device=device, self_check=False))
    good = TokenizedPair(np.array([2, 7, 3]), np.array([5, 3]), False)
    bad = TokenizedPair(np.array([2, 10**6, 3]), np.array([5, 3]), False)
    try:
        raw, errors = scorer.runner.run([good, bad, good])
    except ModelUnavailable as error:
        return f"fatal: {error}"
    return f"alone: {np.isnan(raw).tolist()} {errors}"


@pytest.mark.gpu
def test_a_device_side_assert_is_fatal_at_once(cuda, gpu_models):
    # In a process of its own: after a real device-side assert CUDA is lost to a process.
    done = subprocess.run(
        [sys.executable, "-c", CRASH, gpu_models["bert"]["model"]],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "must be restarted" in done.stdout, done.stderr[-500:]


def test_on_a_cpu_the_same_fault_costs_its_own_pair_only(gpu_models):
    assert crash(gpu_models["bert"]["model"], "cpu") == (
        "alone: [False, True, False] {1: 'the model failed on this pair (IndexError)'}"
    )
