"""Finds passages that look right and are not: the first 20 of BM25 and of the base encoder.

It also keeps both scores of what it finds, for the teacher term; it knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertModel

from tools.embedded_model.bm25 import BM25, top
from tools.embedded_model.training_text import Pool

DEPTH = 20


@dataclass
class BaseEncoder:
    """multilingual-e5-small as a bi-encoder, mean pooling, unit vectors."""

    model: BertModel
    tokenizer: Tokenizer

    def vectors(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        """One unit vector for each text; `prefix` is 'query: ' or 'passage: '."""
        self.tokenizer.enable_truncation(512)
        ids = [e.ids for e in self.tokenizer.encode_batch([prefix + text for text in texts])]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), self.model.config.hidden_size), np.float32)
        for batch in _batches(order, [len(x) for x in ids], 6000):
            width = len(ids[batch[-1]])
            padded = torch.tensor([ids[i] + [1] * (width - len(ids[i])) for i in batch])
            mask = (torch.arange(width) < torch.tensor([[len(ids[i])] for i in batch])).long()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
            means = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[batch] = torch.nn.functional.normalize(means, dim=1).numpy()
        return out


def _batches(order: list[int], lengths: list[int], tokens: int) -> list[list[int]]:
    """Cut `order` (by rising length) so that each batch, padded, stays within `tokens`."""
    out: list[list[int]] = [[]]
    for i in order:
        if out[-1] and lengths[i] * (len(out[-1]) + 1) > tokens:
            out.append([])
        out[-1].append(i)
    return out


@dataclass
class Candidates:
    """One row for each question, one column for each passage of the pool.

    `lexical` is BM25's score, `cosine` the base encoder's, and `alike` the cosine between a passage
    and the right one.
    """

    lexical: NDArray[np.float32]
    cosine: NDArray[np.float32]
    alike: NDArray[np.float32]

    def lists(self) -> list[list[int]]:
        """The union of both top 20s for each question, BM25's first."""
        by_words, by_meaning = top(self.lexical, DEPTH), top(self.cosine, DEPTH)
        return [
            list(dict.fromkeys([*a.tolist(), *b.tolist()]))
            for a, b in zip(by_words, by_meaning, strict=True)
        ]


def find_candidates(pool: Pool, encoder: BaseEncoder) -> Candidates:
    """Score every question of `pool` against every passage, both ways."""
    texts = [question.text for question in pool.questions]
    passages = encoder.vectors(pool.passages, "passage: ")
    asked = encoder.vectors(texts, "query: ")
    right = passages[[question.passage for question in pool.questions]]
    return Candidates(BM25(pool.passages).scores(texts), asked @ passages.T, right @ passages.T)


def mine(pool: Pool, encoder: BaseEncoder, path: Path) -> None:
    """Write the candidates of each question of `pool` to `path`, padded with -1, with scores."""
    found = find_candidates(pool, encoder)
    lists = found.lists()
    width = max(map(len, lists))
    places = np.array([row + [-1] * (width - len(row)) for row in lists], np.int32)
    columns = np.maximum(places, 0)
    np.savez(
        path,
        places=places,
        lexical=np.take_along_axis(found.lexical, columns, 1),
        cosine=np.take_along_axis(found.cosine, columns, 1),
        alike=np.take_along_axis(found.alike, columns, 1),
    )
