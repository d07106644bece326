"""Tiny checkpoints, and what is done to them."""

import json
import shutil
from pathlib import Path

import pytest

from rerank_core import ScorerConfig
from tests.rerank_core.scorers import tiny_checkpoints

CODE = """from transformers import BertForSequenceClassification
class Doubled(BertForSequenceClassification):
    def forward(self, *given, **named):
        out = super().forward(*given, **named)
        out.logits = out.logits * 2
        return out
"""


@pytest.fixture(scope="session")
def saved_bert(tmp_path_factory) -> Path:
    return tiny_checkpoints.save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(saved_bert, tmp_path) -> Path:
    """A checkpoint to be spoiled."""
    return shutil.copytree(saved_bert, tmp_path / "bert")


def asked(folder, **options) -> ScorerConfig:
    return ScorerConfig(model=str(folder), device="cpu", self_check=False, **options)


def change(path: Path, **changes) -> None:
    """Change what a JSON file says."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def add_code(folder: Path, code: str = CODE) -> None:
    """Put code of its own beside a BERT's weights, and name it."""
    (folder / "doubled.py").write_text(code)
    classes = {"AutoModelForSequenceClassification": "doubled.Doubled"}
    change(folder / "config.json", auto_map=classes)
