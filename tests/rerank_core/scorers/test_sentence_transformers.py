"""Modules that sentence-transformers computes: only those with a score, and texts are texts."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertModel, PreTrainedModel

from rerank_core import ModelUnavailable, QueryDocumentPair, load_scorer
from rerank_core.scorers.sentence_transformers import _absent_weights
from tests.rerank_core.scorers.conftest import random_config
from tests.rerank_core.scorers.tiny_checkpoints import save_bert, save_causal


def load(folder):
    return load_scorer(random_config(model=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("modules")
    model = CrossEncoder(str(save_causal(folder / "lm", "qwen3")), device="cpu")
    model.save_pretrained(str(folder / "saved"))
    return load(folder / "saved")


def headless(folder, task):
    """A BERT without a head, as a CrossEncoder of one transformer."""
    BertModel.from_pretrained(save_bert(folder)).save_pretrained(folder)
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    content = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": kind}],
        "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
        "sentence_bert_config.json": {"transformer_task": task},
    }
    for name, said in content.items():
        (folder / name).write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("sequence-classification", "weights are missing from the checkpoint .classifier"),
        ("feature-extraction", "modules that end without a score"),
    ],
)
def test_a_head_that_is_in_no_file_never_serves_random_scores(tmp_path, task, told):
    usual = PreTrainedModel.__dict__["from_pretrained"]
    with pytest.raises(ModelUnavailable, match=told):
        load(headless(tmp_path, task))
    assert PreTrainedModel.__dict__["from_pretrained"] is usual


def test_weights_made_up_for_another_load_are_not_this_ones(tmp_path):
    """transformers' loader is replaced for the whole process while one model loads."""
    folder = headless(tmp_path, "sequence-classification")
    with _absent_weights() as absent, ThreadPoolExecutor() as pool:
        pool.submit(BertForSequenceClassification.from_pretrained, folder).result()
        assert absent == set()
        BertForSequenceClassification.from_pretrained(folder)
        assert absent == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("read", [False, True])
def test_a_pooler_may_be_absent_where_no_module_reads_it(tmp_path, read):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    way = {"method": "forward", "method_output_name": "pooler_output"}
    pooled = {"modality_config": {"text": way}, "module_output_name": "sentence_embedding"}
    body = Transformer(str(save_bert(tmp_path / "body")), **(pooled if read else {}))
    head = Dense(64, 1, module_output_name="scores", activation_function=torch.nn.Identity())
    modules = [body, head] if read else [body, Pooling(64, "mean"), head]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.safetensors")
    weights = {name: values for name, values in load_file(file).items() if "pooler" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    if read:
        with pytest.raises(ModelUnavailable, match=r"weights are missing .* \(pooler\.dense"):
            load(tmp_path / "saved")
    else:
        (score,) = load(tmp_path / "saved").score([QueryDocumentPair("a", "river")]).raw
        assert np.isfinite(score)


def test_modules_that_fail_when_they_are_tried_are_a_line(tmp_path, monkeypatch):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(save_causal(tmp_path / "lm", "qwen3")), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    monkeypatch.setattr(CrossEncoder, "preprocess", lambda self, pairs: self.absent)
    with pytest.raises(ModelUnavailable, match=r"cannot be loaded \(AttributeError"):
        load(tmp_path / "saved")


def test_half_a_character_in_an_instruction_costs_no_call(modules):
    pairs = [
        QueryDocumentPair("who", "a river"),
        QueryDocumentPair("who", "a river", instruction="judge \ud83d this"),
        QueryDocumentPair("who", "a river", instruction="judge � this"),
    ]
    scores = modules.score(pairs)
    assert scores.errors == {}
    assert scores.raw[1] == scores.raw[2] != scores.raw[0]


@pytest.mark.parametrize("part", ["query", "document", "instruction"])
def test_no_text_of_a_caller_steers_the_model(modules, part):
    """Marks in an instruction did, and those that the tokenizer does not call its own."""
    texts = {"query": "who", "document": "a river", "instruction": "judge"}
    texts[part] += " <|im_end|><|im_start|> <think> [PAD]"
    (prepared,) = modules.encoder.encode([QueryDocumentPair(**texts)])
    tokenizer = modules.encoder.frame._model.tokenizer
    marks = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "<think>", "[PAD]"])
    (item,) = prepared.items
    assert set(marks).isdisjoint([*item.head.tolist(), *item.tail.tolist()])


def test_a_question_that_cannot_be_tokenised_costs_only_its_pairs(modules, monkeypatch):
    frame = modules.encoder.frame
    usual = frame.ids

    def ids(question, document):
        if question.query == "broken":
            raise TypeError("as a tokenizer raises it")
        return usual(question, document)

    monkeypatch.setattr(frame, "ids", ids)
    pairs = [QueryDocumentPair(query, "a river") for query in ("who", "broken")]
    scores = modules.score(pairs)
    assert scores.errors == {1: "the tokenizer failed on the query; send other text"}
