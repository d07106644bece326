"""Scores what its modules.json describes: sentence-transformers asks and computes, from our cuts.

Every token of its frame is counted, and nothing is cut behind our back. It does not know batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from rerank_core.catalog.resolve import Resolved
from rerank_core.documents import Passage
from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.body import Forward
from rerank_core.scorers.device import DTYPES, set_precision
from rerank_core.scorers.encoder import Asked, PairEncoder, TokenizedPair
from rerank_core.scorers.frame import Question, TemplateFrame
from rerank_core.scorers.loading import clear_errors, load_options
from rerank_core.scorers.passes.rows import Rows
from rerank_core.scorers.texts import Ids, TextTokenizer
from rerank_core.types import QueryDocumentPair

_NONE = np.empty(0, dtype=np.int64)


def load_modules(resolved: Resolved, device: torch.device) -> tuple[ModulesEncoder, ModulesForward]:
    """Load the checkpoint's modules; more than one output is ModelUnavailable."""
    config = resolved.config
    if config.backend == "packed":
        raise ModelUnavailable(
            f"model {config.model!r} cannot be scored packed: its modules.json leaves the forward"
            " pass to sentence-transformers; use backend auto, or set `template`"
        )
    options = load_options(resolved)
    code = {"code_revision": options.pop("code_revision")} if "code_revision" in options else {}
    with clear_errors(resolved):
        model = CrossEncoder(
            resolved.source.place,
            device="cpu",
            model_kwargs={"use_safetensors": True, "dtype": torch.float32, **code},
            **options,
        )
    if model.num_labels != 1:
        raise ModelUnavailable(
            f"model {config.model!r} has {model.num_labels} outputs per pair; a reranker has one"
        )
    # Cutting is ours; what it would cut beyond it, it would not say.
    model.max_seq_length = 10**6
    set_precision(model, DTYPES[config.dtype])
    frame, tokenizer = ModulesFrame(model, config.instruction), model.tokenizer
    encoder = ModulesEncoder(frame, resolved.max_length, config.max_query_tokens, resolved.policy)
    left = tokenizer.padding_side == "left"
    forward = ModulesForward(model, tokenizer.pad_token_id or 0, left=left)
    forward.to(device)
    return encoder, forward


class ModulesForward(Forward):
    """All modules on a padded rectangle."""

    backend = "sentence_transformers"

    def __init__(self, model: Any, pad_id: int, *, left: bool) -> None:
        super().__init__(model)
        self._rows = Rows(None, 0, pad_id, left=left)

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        return self.module(self._rows.pad(batch, self.device))["scores"]


class ModulesFrame(TemplateFrame):
    """What sentence-transformers puts around texts; found by asking it for a pair without any."""

    def __init__(self, model: Any, instruction: str | None) -> None:
        super().__init__(TextTokenizer(model.tokenizer), _NONE, _NONE, _NONE, None)
        self._model, self._instruction = model, instruction
        marks = sorted(map(re.escape, model.tokenizer.all_special_tokens), key=len, reverse=True)
        self._marks = re.compile("|".join(marks) or r"(?!)")
        self.before = self.ids(Question("", 0, instruction), "")

    def question(self, pair: QueryDocumentPair, limit: int) -> Question:
        """Return the query, cut, and the instruction."""
        return Question(pair.query, limit, pair.instruction or self._instruction)

    def heads(self, asked: Iterable[Question]) -> dict[Question, tuple[Ids, bool] | None]:
        """Return the ids of a pair without its document, and whether the query was cut."""
        cut = {question: self.texts.cut_text(question.query, question.limit) for question in asked}
        return {one: found and (self.ids(one, ""), found[1]) for one, found in cut.items()}

    def ids(self, question: Question, document: str) -> Ids:
        """Return a pair's ids as sentence-transformers makes them."""
        query, _ = self.texts.cut_text(question.query, question.limit) or ("", False)
        # A space inside a mark's spelling makes text of it.
        texts = [self._marks.sub(lambda m: f"{m[0][0]} {m[0][1:]}", t) for t in (query, document)]
        try:
            features = self._model.preprocess([tuple(texts)], prompt=question.instruction)
        except IndexError:
            # A frame without a token, around nothing: a row that it cannot hold.
            if any(texts):
                raise
            return _NONE
        real = features["attention_mask"][0].bool()
        found: Ids = features["input_ids"][0][real].numpy().astype(np.int64)
        return found


class ModulesEncoder(PairEncoder):
    """Cuts texts to what fits beside the frame, and has sentence-transformers tokenise the rest."""

    frame: ModulesFrame

    def _item(self, asked: Asked, passage: Passage, cut: bool) -> TokenizedPair:
        """Return the pair's ids; its document loses tokens until all of the pair fits."""
        text = asked.pair.document[passage.start : passage.end]
        most = self.limits.longest(asked.pair)
        whole = text == asked.pair.document
        limit = passage.last if whole else self.limits.room(asked.pair, len(asked.head))
        while True:
            shown, lost = self.frame.texts.cut_text(text, limit) or ("", True)
            ids, cut = self.frame.ids(asked.question, shown), cut or lost
            over = len(ids) - most
            if over <= 0 or limit == 0:
                return TokenizedPair(_NONE, ids[:most], cut or over > 0)
            limit, cut = max(0, limit - over), True
