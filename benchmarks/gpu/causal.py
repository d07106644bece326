"""The part on Qwen3-Reranker-0.6B's shape: one query's documents against as many queries'."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.gpu import scorers, shapes
from benchmarks.gpu.machine import peak_memory_mb, percentiles_ms, repeated
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import Mix, Pair

_HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer"
    " the query\n<Query>: "
)
_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def causal(session: Session) -> None:
    """Measure a language model; equal queries can share what is computed for their prompt."""
    folder = shapes.qwen3_reranker(session)
    documents = max(session.sizes.documents)
    tokens = 20 if session.dry else 200
    texts = shapes.texts(folder, 512).request(documents, Mix("", tokens, 0.0, tokens), seed=1)
    asked = {
        "one query": texts,
        # As many tokens, nothing to share: what shares a prefix is slower here, all else is not.
        "as many queries": [(f"{query} {i:03d}", text) for i, (query, text) in enumerate(texts)],
    }
    for name, shares in (("ours", True), ("ours, prompts not shared", False)):
        with scorers.freed():
            session.attempt("causal", name, partial(_ours, session, folder, asked, shares))
    with scorers.freed():
        session.attempt("causal", "the authors' way", partial(_authors, session, folder, asked))


def _ours(
    session: Session, folder: Path, asked: dict[str, list[Pair]], shares: bool
) -> dict[str, Any]:
    scorer: Any = scorers.ours(session, folder)
    found: dict[str, Any] = {"backend": scorer.info.backend}
    if not shares:
        scorer.forward.shares = False
    elif not scorer.forward.shares:
        raise RuntimeError("the comparison at load did not let prompts be shared")
    for name, texts in asked.items():
        pairs = scorers.pairs_of(texts)
        scores = scorer.score(pairs)
        if scores.errors:
            raise RuntimeError(next(iter(scores.errors.values())))
        found[name] = {
            "tokens": int(scores.tokens.sum()),
            **percentiles_ms(repeated(session, lambda pairs=pairs: scorer.score(pairs))),
            **peak_memory_mb(session.device, lambda pairs=pairs: scorer.score(pairs)),
        }
    return found


def _authors(session: Session, folder: Path, asked: dict[str, list[Pair]]) -> dict[str, Any]:
    """Measure what the model's card shows: prompts as text, left-padded, 32 at a time."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=scorers.DTYPES[session.dtype], attn_implementation="sdpa"
    )
    model = model.to(session.device).eval()
    answers = [tokenizer.encode(word, add_special_tokens=False)[-1] for word in ("no", "yes")]

    @torch.inference_mode()
    def score(texts: list[Pair]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(texts), 32):
            prompts = [
                f"{_HEAD}{query}\n<Document>: {text}{_TAIL}"
                for query, text in texts[start : start + 32]
            ]
            batch = tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt")
            batch.pop("token_type_ids", None)
            logits = model(**batch.to(session.device)).logits[:, -1, answers].float()
            scores += logits.softmax(-1)[:, 1].tolist()
        return scores

    return {
        name: percentiles_ms(repeated(session, lambda texts=texts: score(texts)))
        for name, texts in asked.items()
    }
