"""A modules.json is left to sentence-transformers only where a score comes out of it."""

import json

import pytest

from rerank_core import ModelUnavailable
from rerank_core.catalog.resolve import resolve
from tests.rerank_core.catalog.conftest import asked, change

KINDS = "sentence_transformers.models"


def add_modules(folder, model_type, *kinds):
    modules = [{"idx": i, "path": "", "type": f"{KINDS}.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    if model_type is not None:
        said = json.dumps({"model_type": model_type})
        (folder / "config_sentence_transformers.json").write_text(said)


@pytest.mark.parametrize("model_type", [None, "SentenceTransformer", "SparseEncoder"])
@pytest.mark.parametrize("architecture", ["BertModel", "Qwen3ForCausalLM"])
def test_an_embedding_folder_never_gets_a_head_made_up(bert, model_type, architecture):
    """all-MiniLM and bge-m3 served random scores, other ones after each start."""
    change(bert / "config.json", architectures=[architecture])
    add_modules(bert, model_type, "Transformer", "Pooling")
    with pytest.raises(ModelUnavailable, match=r"has Transformer, Pooling.*name a reranker"):
        asked(bert).fingerprint()


def test_a_cross_encoder_s_modules_are_left_to_sentence_transformers(bert):
    change(bert / "config.json", architectures=["BertModel"])
    add_modules(bert, "CrossEncoder", "Transformer", "Dense")
    assert resolve(asked(bert)).engine == "sentence_transformers"


def test_an_adapter_of_modules_is_refused_where_it_was_left_out(bert, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    change(bert / "config.json", architectures=["BertModel"])
    add_modules(bert, "CrossEncoder", "Transformer", "Dense")
    with pytest.raises(ModelUnavailable, match=r"would be left out.*merge it first, or set `temp"):
        asked(bert, adapter=str(tmp_path / "lora")).fingerprint()
