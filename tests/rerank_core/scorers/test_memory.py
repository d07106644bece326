"""Memory stays flat however many lengths a process meets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_core import ScorerConfig, load_scorer

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
