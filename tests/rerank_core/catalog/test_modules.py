"""A modules.json is left to sentence-transformers only where a score comes out of it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

from rerank_core import ModelUnavailable, QueryDocumentPair, load_scorer
from rerank_core.catalog.resolve import resolve
from tests.rerank_core.catalog.conftest import asked, change

PAIR = QueryDocumentPair("who", "a river")
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


@pytest.mark.parametrize("model_type", [None, "SentenceTransformer"])
def test_a_classifier_beside_the_modules_it_was_trained_from_scores_by_its_head(bert, model_type):
    """It was refused as an embedding model; sentence-transformers loads the head, too."""
    plain = load_scorer(asked(bert)).score([PAIR]).raw
    add_modules(bert, model_type, "Transformer", "Pooling")
    scorer = load_scorer(asked(bert, activation="identity"))
    np.testing.assert_array_equal(scorer.score([PAIR]).raw, plain)
    theirs = CrossEncoder(str(bert), device="cpu", activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(theirs.predict([(PAIR.query, PAIR.document)]), plain, atol=1e-5)


def test_a_classifier_without_its_head_is_refused_beside_modules_too(bert):
    weights = load_file(bert / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "classifier" not in name}
    save_file(kept, bert / "model.safetensors", metadata={"format": "pt"})
    add_modules(bert, None, "Transformer", "Pooling")
    with pytest.raises(ModelUnavailable, match="weights are missing from the checkpoint"):
        load_scorer(asked(bert))


def test_a_cross_encoder_of_more_than_its_classifier_is_left_to_sentence_transformers(bert):
    add_modules(bert, "CrossEncoder", "Transformer", "Dense")
    assert resolve(asked(bert)).engine == "sentence_transformers"


def test_an_adapter_of_modules_is_refused_where_it_was_left_out(bert, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    change(bert / "config.json", architectures=["BertModel"])
    add_modules(bert, "CrossEncoder", "Transformer", "Dense")
    with pytest.raises(ModelUnavailable, match=r"would be left out.*merge it first, or set `temp"):
        asked(bert, adapter=str(tmp_path / "lora")).fingerprint()
