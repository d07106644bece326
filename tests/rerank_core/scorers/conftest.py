"""Models for the scorer tests: tiny ones from seeds, and the embedded one where it is."""

import os
from pathlib import Path

import pytest
import torch

from rerank_core.config import EMBEDDED_MODEL_DIR, ScorerConfig
from tests.rerank_core.scorers import tiny_checkpoints

FAMILIES = ("bert", "roberta", "xlm_roberta", "modernbert")


def cpu_has(feature: str) -> bool:
    """Say whether this machine's CPU has a feature, as Linux spells it."""
    known = Path("/proc/cpuinfo")
    return known.exists() and feature in known.read_text().split()


def random_config(**options) -> ScorerConfig:
    """A config for random weights, which no self-check could pass."""
    return ScorerConfig(self_check=False, **options)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """One folder per family, random weights."""
    return {
        name: getattr(tiny_checkpoints, f"save_{name}")(tmp_path_factory.mktemp(name))
        for name in (*FAMILIES, "deberta")
    }


@pytest.fixture(scope="session")
def trained_model() -> str:
    """The embedded model; a stand-in may be named until its weights are in the package."""
    if (EMBEDDED_MODEL_DIR / "model.safetensors").is_file():
        return "embedded"
    stand_in = os.environ.get("RERANK_TEST_MODEL")
    if not stand_in:
        pytest.skip("no embedded weights and RERANK_TEST_MODEL is not set")
    return stand_in


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and on a busy machine threads wait for threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
