"""Memory stays flat however many lengths a process meets, and loading takes none twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rerank_core import ScorerConfig, load_scorer
from tests.rerank_core.scorers.tiny_checkpoints import save_causal

pytestmark = [pytest.mark.seconds, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
# Every call has another number of tokens in all, and so other shapes of every product.
SCRIPT = """
import sys
from rerank_core import QueryDocumentPair, ScorerConfig, load_scorer

def held_mb():
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

scorer = load_scorer(ScorerConfig(model="embedded", threads=1))
for call in range(int(sys.argv[1])):
    pairs = [QueryDocumentPair("what is it", "word " * n) for n in (1 + call % 480, 1 + call // 7)]
    scorer.score(pairs)
    if call == 30:
        begun = held_mb()
print(held_mb() - begun)
"""


def test_calls_of_ever_new_lengths_do_not_fill_the_memory():
    told = {k: v for k, v in os.environ.items() if not k.endswith("_CACHE_CAPACITY")}
    # Without bounds these calls add some 200 MB.
    command = [sys.executable, "-c", SCRIPT, "130"]
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50


def test_what_the_environment_says_of_kept_products_stands(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1000")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    load_scorer(ScorerConfig(model="embedded"))
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "1000"
    assert os.environ["LRU_CACHE_CAPACITY"] == "16"


LOAD = """
import sys
from rerank_core import ScorerConfig
from rerank_core.catalog.resolve import resolve
from rerank_core.scorers.loading import load_model

def own_mb():
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

def load(folder):
    config = ScorerConfig(model=folder, template="qwen3-reranker", dtype="bfloat16")
    return load_model(resolve(config))

load(sys.argv[1])
begun = own_mb()
model = load(sys.argv[2])
print(own_mb() - begun)
"""


def test_a_language_models_weights_stay_in_their_file_until_they_are_moved(tmp_path):
    """So that 16 GB of them need no 16 GB of the host's memory on their way to a GPU."""
    folders = []
    for name, size in (("small", 64), ("large", 2048)):
        wide = {"hidden_size": size, "intermediate_size": 2 * size}
        folder = save_causal(tmp_path / name, "qwen3", **wide)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        folders.append(tmp_path / f"{name}-bfloat16")
        model.save_pretrained(folders[-1])
    size_mb = (folders[1] / "model.safetensors").stat().st_size / 2**20
    command = [sys.executable, "-c", LOAD, *map(str, folders)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert size_mb > 60
    assert float(done.stdout) < size_mb / 4
