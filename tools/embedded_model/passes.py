"""Runs pairs through a cross-encoder in padded passes of like length, for training and judging."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from rerank_core.batching import plan_batches

Ids = dict[str, list[list[int]]]


def token_ids(
    tokenizer: PreTrainedTokenizerFast, queries: Sequence[str], passages: Sequence[str]
) -> Ids:
    """Model inputs of each pair, not padded, up to 512 tokens; what is too long is the passage."""
    encoded = tokenizer(list(queries), list(passages), truncation="only_second", max_length=512)
    return dict(encoded)


def raw_scores(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, ids: Ids, tokens: int
) -> Tensor:
    """Raw float32 score of each pair, in input order; a pass has at most `tokens` padded tokens."""
    passes = plan_batches([len(row) for row in ids["input_ids"]], tokens)
    found = []
    for rows in passes:
        part = {name: [values[i] for i in rows] for name, values in ids.items()}
        found.append(model(**tokenizer.pad(part, return_tensors="pt")).logits[:, 0])
    order = torch.tensor([i for rows in passes for i in rows])
    return torch.cat(found).float()[order.argsort()]
