"""Vocabularies that are only a SentencePiece file: read as its library reads them, or refused."""

import json
import math

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForSequenceClassification
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.utils import import_utils

from rerank_core import ModelUnavailable, QueryDocumentPair, load_scorer
from rerank_core.scorers.encoder import items_of
from tests.rerank_core.scorers.conftest import random_config
from tests.rerank_core.scorers.tiny_checkpoints import (
    roberta_tokenizer,
    save_encoder,
    save_xlm_roberta,
)

PAIRS = [
    QueryDocumentPair("how many people live here", text)
    for text in ("a river", "the old town and the  river " * 4, "", "北京是中国的首都。")
]
# Of each kind: the file's name, its tokenizer class, its own special pieces in order, and how a
# pair is framed and where the vocabulary's own ids start there.
KINDS = {
    "xlm_roberta": ("sentencepiece.bpe.model", "XLMRobertaTokenizer", ("<unk>", "<s>", "</s>")),
    "t5": ("spiece.model", "T5Tokenizer", ("<pad>", "</s>", "<unk>")),
}
UNKNOWN, NORMAL, CONTROL = 2, 1, 3


def sentencepiece_model(special) -> bytes:
    """The seeded tokenizer's pieces as the file that SentencePiece's trainer would write."""
    model = import_protobuf().ModelProto()
    model.trainer_spec.model_type = 1
    places = {piece: special.index(piece) for piece in special}
    model.trainer_spec.unk_id = places["<unk>"]
    model.trainer_spec.eos_id = places["</s>"]
    model.trainer_spec.bos_id = places.get("<s>", -1)
    model.trainer_spec.pad_id = places.get("<pad>", -1)
    model.normalizer_spec.name = "identity"
    vocabulary = json.loads(roberta_tokenizer().backend_tokenizer.to_str())["model"]["vocab"]
    for piece in special:
        kind = UNKNOWN if piece == "<unk>" else CONTROL
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in vocabulary[4:]:
        model.pieces.add(piece=piece, score=score, type=NORMAL)
    return model.SerializeToString()


@pytest.fixture(params=KINDS)
def checkpoint(request, tmp_path):
    """A seeded checkpoint with nothing but a SentencePiece file for a tokenizer."""
    name, tokenizer_class, special = KINDS[request.param]
    if request.param == "t5":
        save_encoder(tmp_path, "t5", vocab_size=160, pad_token_id=0, eos_token_id=1)
    else:
        save_xlm_roberta(tmp_path, vocab_size=160)
    for path in (tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"):
        path.unlink()
    settings = {"tokenizer_class": tokenizer_class, "model_max_length": 128, "extra_ids": 0}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / name).write_bytes(sentencepiece_model(special))
    return request.param, tmp_path


def ids(kind, folder, query, document) -> list[int]:
    """A pair's ids by SentencePiece itself, framed as the model's paper says."""
    name, _, _ = KINDS[kind]
    own = SentencePieceProcessor(model_file=str(folder / name))
    if kind == "t5":
        return [*own.encode(query), 1, *own.encode(document), 1]
    # XLM-R's ids: <s> <pad> </s> <unk>, then the file's pieces, which has three before them.
    first, second = ([3 if i == 0 else i + 1 for i in own.encode(t)] for t in (query, document))
    return [0, *first, 2, 2, *second, 2]


def test_a_tokenizer_that_is_only_sentencepiece_is_read_as_sentencepiece_reads_it(checkpoint):
    kind, folder = checkpoint
    scorer = load_scorer(random_config(model=str(folder), device="cpu"))
    scores = scorer.score(PAIRS)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    for pair, item in zip(PAIRS, items_of(scorer.prepare(PAIRS)), strict=True):
        wanted = ids(kind, folder, pair.query, pair.document)
        assert [*item.head.tolist(), *item.tail.tolist()] == wanted
        with torch.inference_mode():
            expected.append(float(model(torch.tensor([wanted])).logits[0, 0]))
    assert scores.errors == {}
    np.testing.assert_allclose(scores.raw, expected, rtol=0, atol=1e-5)
    assert math.isfinite(sum(expected))
    assert np.ptp(expected) > 1e-3


def test_without_the_packages_it_is_refused_with_the_command_that_installs_them(
    checkpoint, monkeypatch
):
    kind, folder = checkpoint
    _, told = import_utils.BACKENDS_MAPPING["sentencepiece"]
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "sentencepiece", (lambda: False, told))
    with pytest.raises(ModelUnavailable) as caught:
        load_scorer(random_config(model=str(folder), device="cpu"))
    message = str(caught.value)
    assert f"has its vocabulary only as {KINDS[kind][0]}" in message
    assert "pip install 'ray-rerank[sentencepiece]'" in message
