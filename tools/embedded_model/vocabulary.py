"""Cuts the base encoder down: English and Chinese pieces only, bottom layers only, one score.

What is kept is the base model's own weights; only the head is new. It knows nothing of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from wordfreq import get_frequency_dict
from zhconv import convert

from tools.embedded_model.base_image import SPECIAL, BaseImage, unigram_tokenizer

PIECES = 23_000
LAYERS = 6
_PUNCTUATION = "，。、；：？！…—～·“”‘’《》〈〉「」『』【】（）％＋－＝／"


def choose_pieces(base: BaseImage, texts: Iterable[str], size: int = PIECES) -> list[int]:
    """Ids of the pieces to keep, in their old order.

    Special pieces, ASCII characters, Chinese punctuation and the common characters of both
    scripts always; then by how often the piece is used in `texts` (in both scripts) and in
    wordfreq's lists of common English and Chinese words.
    """
    counts = _usage(base.tokenizer(), texts)
    common = _common_characters()
    must: list[int] = []
    may: list[int] = []
    for i, (piece, _) in enumerate(base.pieces):
        bare = piece.strip("▁")
        if piece in SPECIAL or (len(bare) <= 1 and (bare.isascii() or bare in common)):
            must.append(i)
        elif (
            bare.isascii()
            or _is_chinese(bare)
            or (counts[i] >= 20 and not any("\u3040" <= c <= "\u30ff" for c in bare))
        ):
            may.append(i)
    may.sort(key=lambda i: (-counts[i], i))
    return sorted(must + may[: size - len(must)])


def _usage(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    both = [t for text in texts for t in {text, convert(text, "zh-cn"), convert(text, "zh-tw")}]
    for encoding in tokenizer.encode_batch(both, add_special_tokens=False):
        counts.update(encoding.ids)
    for language in ("en", "zh"):
        words = sorted(get_frequency_dict(language).items(), key=lambda w: -w[1])[:40_000]
        for script in ("zh-cn", "zh-tw") if language == "zh" else ("zh-cn",):
            spelled = [convert(word, script) if language == "zh" else word for word, _ in words]
            encodings = tokenizer.encode_batch(spelled, add_special_tokens=False)
            for encoding, (_, frequency) in zip(encodings, words, strict=True):
                counts.update({i: max(1, round(frequency * 2e6)) for i in encoding.ids})
    return counts


def _common_characters() -> set[str]:
    """Level 1 of GB 2312 (simplified), level 1 of Big5 (traditional), and punctuation."""
    rows = [bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)]
    cells = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
    big5 = [bytes((high, low)) for high in range(0xA4, 0xC7) for low in cells]
    simplified = {c for code in rows for c in code.decode("gb2312", "ignore")}
    traditional = {c for code in big5 for c in code.decode("big5", "ignore")}
    return simplified | traditional | set(_PUNCTUATION)


def _is_chinese(piece: str) -> bool:
    return bool(piece) and all("\u4e00" <= c <= "\u9fff" or c.isascii() for c in piece)


def trimmed_tokenizer(base: BaseImage, kept: list[int]) -> PreTrainedTokenizerFast:
    """The tokenizer over the kept pieces, for pairs of up to 512 tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram_tokenizer([base.pieces[i] for i in kept]),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def trimmed_model(base: BaseImage, kept: list[int], seed: int) -> BertForSequenceClassification:
    """The bottom layers with the kept rows and a new head for one score, float32.

    Both token types start from the base's first one with a small difference, and the pooler from
    the identity, so that training starts where the encoder stands.
    """
    torch.manual_seed(seed)
    settings = base.config.to_dict() | {
        "vocab_size": len(kept),
        "num_hidden_layers": LAYERS,
        "type_vocab_size": 2,
        "pad_token_id": kept.index([piece for piece, _ in base.pieces].index("<pad>")),
        "bos_token_id": None,
        "eos_token_id": None,
        "id2label": {0: "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = BertConfig(**settings)
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    model = BertForSequenceClassification(config)
    state = {}
    for name, array in base.tensors.items():
        parts = name.split(".")
        if parts[1] == "layer" and int(parts[2]) >= LAYERS:
            continue
        if name == "embeddings.word_embeddings.weight":
            array = array[np.array(kept)]
        if name == "embeddings.token_type_embeddings.weight":
            difference = np.random.default_rng(seed).normal(0, 0.02, array.shape[1])
            array = np.stack([array[0], array[0] + difference]).astype(np.float32)
        state[f"bert.{name}"] = torch.from_numpy(array)
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        model.bert.pooler.dense.weight.copy_(torch.eye(config.hidden_size))
        model.bert.pooler.dense.bias.zero_()
    return model
