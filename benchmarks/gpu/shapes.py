"""Checkpoints with the shapes of real rerankers and weights from a seed; texts of exact length.

Their compute is the real models', their scores mean nothing. They speak the embedded model's
tokens, in the real model's vocabulary, so that text costs what it costs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import Texts
from rerank_core.config import EMBEDDED_MODEL_DIR

_QWEN_MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")


def bge_reranker_v2_m3(session: Session) -> Path:
    """Return a folder with the shape of BAAI/bge-reranker-v2-m3."""
    folder = session.work / "bge-reranker-v2-m3-shape"
    if (folder / "tokenizer.json").exists():
        return folder
    sizes = session.sizes
    config = XLMRobertaConfig(
        vocab_size=30_000 if session.dry else 250_002,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.hidden,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    # Half a billion normal numbers: seconds on a GPU, most of a minute on one core.
    with torch.device(session.device):
        model = XLMRobertaForSequenceClassification(config)
    model.eval().save_pretrained(folder)
    names = {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": 8192}
    text = (EMBEDDED_MODEL_DIR / "tokenizer_config.json").read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(json.loads(text) | names))
    text = (EMBEDDED_MODEL_DIR / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder


def qwen3_reranker(session: Session) -> Path:
    """Return a folder with the shape of Qwen/Qwen3-Reranker-0.6B."""
    folder = session.work / "Qwen3-Reranker-0.6B-shape"
    if (folder / "tokenizer.json").exists():
        return folder
    sizes = session.sizes
    config = Qwen3Config(
        vocab_size=30_000 if session.dry else 151_669,
        hidden_size=sizes.hidden,
        num_hidden_layers=2 if session.dry else 28,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads // 2,
        head_dim=16 if session.dry else 128,
        intermediate_size=3 * sizes.hidden,
        max_position_embeddings=40_960,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(session.device):
        model = Qwen3ForCausalLM(config)
    # As the real one is stored.
    model.to(torch.bfloat16).eval().save_pretrained(folder)
    _qwen_tokenizer().save_pretrained(folder)
    return folder


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_file(str(EMBEDDED_MODEL_DIR / "tokenizer.json"))
    backend.add_special_tokens(list(_QWEN_MARKS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=32_768,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        padding_side="left",
    )


@cache
def texts(folder: Path, longest: int) -> Texts:
    """Return what cuts documents of exact token counts for a folder's tokenizer."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()

    def offsets(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = backend.encode(text, add_special_tokens=False).offsets
        return found

    return Texts(offsets, longest)


def body_flops(model: Any, lengths: Sequence[int]) -> float:
    """Return what an encoder's real tokens need: linear layers, and attention inside pairs."""
    body = getattr(model, model.base_model_prefix)
    weights = sum(
        module.weight.numel() for module in body.modules() if type(module) is torch.nn.Linear
    )
    hidden, layers = model.config.hidden_size, model.config.num_hidden_layers
    squares = sum(int(length) ** 2 for length in lengths)
    return float(2 * weights * sum(map(int, lengths)) + 4 * hidden * layers * squares)
