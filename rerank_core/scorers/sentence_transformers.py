"""Scores what its modules.json describes: sentence-transformers asks and computes, from our cuts.

Every token of its frame is counted, and nothing is cut behind our back. It does not know batches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor

from rerank_core.catalog.resolve import Resolved
from rerank_core.documents import Passage, SplitPolicy, read_passages
from rerank_core.errors import ModelUnavailable
from rerank_core.limits import PairLimits
from rerank_core.scorers.body import Rows
from rerank_core.scorers.device import DTYPES, set_precision
from rerank_core.scorers.encoder import NO_ROOM, Encoded, TokenizedPair
from rerank_core.scorers.heads import one_logit
from rerank_core.scorers.loading import clear_errors, load_options
from rerank_core.scorers.texts import TextTokenizer
from rerank_core.types import QueryDocumentPair

_NONE = np.empty(0, dtype=np.int64)


def load_modules(
    resolved: Resolved, device: torch.device, policy: SplitPolicy | None
) -> tuple[ModulesEncoder, ModulesForward]:
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
    model.to(device)
    return ModulesEncoder(resolved, model, policy), ModulesForward(model, device)


class ModulesForward:
    """All modules on a padded rectangle."""

    padded = True

    def __init__(self, model: Any, device: torch.device) -> None:
        self.module, self.device = model, device
        tokenizer = model.tokenizer
        self._rows = Rows(
            None, 0, tokenizer.pad_token_id or 0, left=tokenizer.padding_side == "left"
        )

    @torch.inference_mode()
    def __call__(self, batch: Sequence[TokenizedPair]) -> Tensor:
        """Return one logit a pair."""
        return one_logit(self.module(self._rows.pad(batch, self.device))["scores"], None)


class ModulesEncoder:
    """Cuts texts to what fits beside the frame, and has sentence-transformers tokenise the rest."""

    def __init__(self, resolved: Resolved, model: Any, policy: SplitPolicy | None) -> None:
        self._model, self.policy = model, policy
        self._instruction = resolved.config.instruction
        self._texts = TextTokenizer(model.tokenizer)
        marks = sorted(map(re.escape, model.tokenizer.all_special_tokens), key=len, reverse=True)
        self._marks = re.compile("|".join(marks) or r"(?!)")
        frame = len(self._ids("", "", self._instruction))
        self.limits = PairLimits.of(resolved.max_length, resolved.config.max_query_tokens, frame)

    def encode(self, pairs: Sequence[QueryDocumentPair]) -> Encoded:
        """Encode pairs in input order."""
        out = Encoded()
        for index, pair in enumerate(pairs):
            try:
                reason = self._encode_one(index, pair, out)
            except Exception as error:
                reason = f"the tokenizer failed on this pair ({type(error).__name__})"
            if reason is not None:
                out.errors[index] = reason
        return out

    def longest_pair(self) -> TokenizedPair:
        """Return a pair of `max_length` tokens that mean nothing."""
        return TokenizedPair(
            _NONE, np.resize(self._ids("a", "a", None), self.limits.max_length), False
        )

    def _encode_one(self, index: int, pair: QueryDocumentPair, out: Encoded) -> str | None:
        instruction = pair.instruction or self._instruction
        query = self._texts.cut_text(pair.query, self.limits.query(pair))
        if query is None:
            return "the tokenizer failed on the query; send other text"
        bare = len(self._ids(query[0], "", instruction))
        room = self.limits.room(pair, bare)
        if room < 1:
            return NO_ROOM
        found = self._passages(pair, room)
        if found is None:
            spans, room = [(0, len(pair.document))], self.limits.document(pair, bare)
        else:
            spans = [(passage.start, passage.end) for passage in found[0]]
        for start, end in spans:
            texts = query[0], pair.document[start:end]
            ids, cut = self._fit(texts, instruction, room, self.limits.longest(pair))
            out.items.append(TokenizedPair(_NONE, ids, cut or query[1]))
            out.owners.append(index)
        if found is not None:
            out.add_passages(index, *found)
        return None

    def _fit(
        self, texts: tuple[str, str], instruction: str | None, room: int, most: int
    ) -> tuple[Any, bool]:
        """Return the pair's ids, at most so many; the document loses tokens until they are."""
        query, text = texts
        limit, cut = room, False
        while True:
            found = self._texts.cut_text(text, limit)
            document, lost = found if found is not None else ("", True)
            ids, cut = self._ids(query, document, instruction), cut or lost
            over = len(ids) - most
            if over <= 0 or limit == 0:
                return ids[:most], cut or over > 0
            limit, cut = max(0, limit - over), True

    def _passages(self, pair: QueryDocumentPair, room: int) -> tuple[list[Passage], bool] | None:
        if self.policy is None:
            return None
        limit = self.policy.size(room) * self.policy.max_passages + 1
        found = self._texts.batch([pair.document], limit, offsets=True)[pair.document]
        offsets = [] if found is None else found.encoding.offsets
        return read_passages(pair.document, offsets, self.policy, room, pair.max_document_tokens)

    def _ids(self, query: str, document: str, instruction: str | None) -> Any:
        # A space inside a mark's spelling makes text of it.
        texts = [
            self._marks.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text) for text in (query, document)
        ]
        features = self._model.preprocess([tuple(texts)], prompt=instruction)
        real = features["attention_mask"][0].bool()
        return features["input_ids"][0][real].numpy().astype(np.int64)
