"""Scores with language models that answer yes or no, asked with their family's own prompt.

Left-padded, so that the last token is the answer's place; only that place and only the answer's
tokens are multiplied with the output layer, in float32. It does not know other kinds of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from rerank_core.catalog import CAUSAL_FAMILIES, CausalFamily, find_family
from rerank_core.errors import ModelUnavailable
from rerank_core.limits import PairLimits, usable_length
from rerank_core.scorers.device import DTYPES, in_float32, resolve_device
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.scorers.loading import (
    Source,
    clear_errors,
    refuse_missing_weights,
    without_progress_bars,
)
from rerank_core.scorers.pipeline import score_pool
from rerank_core.scorers.runner import BatchRunner
from rerank_core.scorers.texts import Ids, TextTokenizer
from rerank_core.types import PairScores, QueryDocumentPair, ScorerInfo

DEFAULT_BUDGETS = {"cpu": 2048, "cuda": 16384}


class CausalScorer:
    """A language model of a family in the catalogue."""

    def __init__(self, source: Source, model_type: str) -> None:
        config = source.config
        family = find_family(source.name, model_type, config.template)
        if family is None:
            raise ModelUnavailable(
                f"model {source.name!r} is a language model without a known reranking prompt, so"
                " its scores would mean nothing; if it was trained with one of these, set"
                f" `template` to it: {', '.join(CAUSAL_FAMILIES)}. Otherwise name a reranker"
            )
        self._device = resolve_device(config)
        model, tokenizer = _load(source)
        self._prompt = _Prompt(family, config.instruction, tokenizer)
        limit = min(family.max_length, model.config.max_position_embeddings)
        self._prompt.set_limits(
            usable_length(config.model, config.max_length, limit), config.max_query_tokens
        )
        self._pad_id = tokenizer.pad_token_id or 0
        _keep_only_answers(model, self._prompt.answers)
        self._model = model.to(self._device)
        self._info = ScorerInfo(
            model=source.name,
            revision=config.revision,
            backend="causal",
            device=str(self._device),
            dtype=config.dtype,
            max_length=self._prompt.max_length,
            max_batch_tokens=config.max_batch_tokens or DEFAULT_BUDGETS[self._device.type],
            activation="sigmoid" if config.activation == "auto" else config.activation,
            fingerprint=config.fingerprint(),
        )
        budget = self._info.max_batch_tokens
        self._runner = BatchRunner(self._forward, self._score_in_float32, budget, padded=True)
        self._chunk_characters = budget * 16 if self._device.type == "cuda" else None

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a pair that cannot be scored fails alone."""
        return score_pool(pairs, self._prompt.encode, self._runner, self._chunk_characters)

    @property
    def document_tokens(self) -> _Prompt:
        """What splitting long documents needs to know."""
        return self._prompt

    def warm_up(self) -> None:
        """Score one batch of the largest size, so that the first caller meets a warm device."""
        longest = self._prompt.longest_pair()
        self._runner.run([longest] * max(1, self._info.max_batch_tokens // len(longest)))

    @torch.inference_mode()
    def _forward(self, batch: Sequence[TokenizedPair]) -> Tensor:
        longest = max(len(pair) for pair in batch)
        ids = torch.full((len(batch), longest), self._pad_id)
        mask = torch.zeros_like(ids)
        for row, pair in enumerate(batch):
            ids[row, longest - len(pair) :] = torch.from_numpy(
                np.concatenate((pair.head, pair.tail))
            )
            mask[row, longest - len(pair) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits: Tensor = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=positions.to(self._device),
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1]
        return logits[:, 0] - logits[:, 1] if logits.shape[1] == 2 else logits[:, 0]

    def _score_in_float32(self, pair: TokenizedPair) -> float:
        with in_float32(self._model):
            return float(self._forward([pair])[0])


def _load(source: Source) -> tuple[Any, Any]:
    with clear_errors(source), without_progress_bars():
        loader: Any = AutoModelForCausalLM  # its stubs know nothing of output_loading_info
        model, report = loader.from_pretrained(
            source.path,
            dtype=DTYPES[source.config.dtype],
            use_safetensors=True,
            output_loading_info=True,
            **source.options,
        )
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.options)
    refuse_missing_weights(source.name, report)
    return model.eval(), tokenizer


class _AnswerRows(nn.Module):
    """The rows of the output layer that belong to the answer's tokens, in float32."""

    def __init__(self, layer: Any, answers: Sequence[int]) -> None:
        super().__init__()
        rows = list(answers)
        # Plain attributes of their own precision: the model's `to(dtype)` must not halve them.
        self._rows = layer.weight.detach()[rows].float()
        bias = getattr(layer, "bias", None)
        self._bias = None if bias is None else bias.detach()[rows].float()

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self._bias is None else self._bias.to(hidden.device)
        return nn.functional.linear(hidden.float(), self._rows.to(hidden.device), bias)


def _keep_only_answers(model: Any, answers: Sequence[int]) -> None:
    model.set_output_embeddings(_AnswerRows(model.get_output_embeddings(), answers))


class _Prompt:
    """Turns pairs into the family's prompt, as ids; only the document is ever cut."""

    def __init__(self, family: CausalFamily, instruction: str | None, tokenizer: Any) -> None:
        self._family = family
        self._instruction = instruction
        self.texts = TextTokenizer(tokenizer)
        self.answers = _answer_ids(family, self.texts)
        bos = tokenizer.bos_token_id
        self._bos = [bos] if family.starts_with_bos and bos is not None else []
        self.max_length = 0
        self._limits = PairLimits(0, 0)

    def set_limits(self, max_length: int, max_query_tokens: int | None) -> None:
        """Set how many tokens a prompt may have, and how many of them a query keeps."""
        head, tail = self._around("", None)
        fixed = len(head) + len(tail)
        if max_length < fixed + 8:
            raise ModelUnavailable(
                f"max_length {max_length} leaves no room: the prompt alone takes {fixed} tokens"
            )
        self.max_length = max_length
        self._limits = PairLimits.of(max_length, max_query_tokens, fixed)

    def encode(
        self, pairs: Sequence[QueryDocumentPair]
    ) -> tuple[list[TokenizedPair | None], dict[int, str]]:
        """Tokenise pairs in input order; None and a reason for a pair that cannot be."""
        piece = self._family.document_piece
        documents = self.texts.batch([piece(pair.document) for pair in pairs], self.max_length)
        frames: dict[tuple[str, int, str | None], tuple[Ids, Ids, bool] | None] = {}
        out: list[TokenizedPair | None] = []
        errors: dict[int, str] = {}
        for index, pair in enumerate(pairs):
            key = self._question(pair)
            if key not in frames:
                frames[key] = self._frame(*key)
            frame, document = frames[key], documents[piece(pair.document)]
            if frame is None or document is None:
                part = "query" if frame is None else "document"
                errors[index] = f"the tokenizer failed on the {part}; send other text"
                out.append(None)
                continue
            head, tail, query_cut = frame
            room = self.max_length - len(head) - len(tail)
            if room < 1:
                errors[index] = "the instruction leaves no room for the document; shorten it"
                out.append(None)
                continue
            room = min(room, pair.max_document_tokens or room)
            kept = np.concatenate((document.ids[:room], tail))
            cut = query_cut or document.cut or len(document.ids) > room
            out.append(TokenizedPair(head, kept, cut))
        return out, errors

    def document_room(self, pair: QueryDocumentPair) -> int:
        """Return how many of the document's tokens the model can read beside the query."""
        frame = self._frame(*self._question(pair))
        taken = 0 if frame is None else len(frame[0]) + len(frame[1])
        return max(0, self.max_length - taken)

    def longest_pair(self) -> TokenizedPair:
        """Return a prompt of `max_length` tokens that means nothing."""
        head, tail = self._around("", None)
        filler = np.resize(tail, self.max_length - len(head))
        return TokenizedPair(head, filler, False)

    def _question(self, pair: QueryDocumentPair) -> tuple[str, int, str | None]:
        """Return the query, how many of its tokens are kept, and the instruction in its place."""
        limit = self._limits.query(pair)
        if self._family.takes_instruction:
            return pair.query, limit, pair.instruction
        return pair.question, limit, None

    def _frame(
        self, query: str, limit: int, instruction: str | None
    ) -> tuple[Ids, Ids, bool] | None:
        """Return what stands before and behind the document, and whether the query was cut."""
        found = self.texts.cut_text(query, limit)
        if found is None or (instruction and self.texts.one(instruction) is None):
            return None
        text, _, cut = found
        return *self._around(text, instruction), cut

    def _around(self, query: str, instruction: str | None) -> tuple[Ids, Ids]:
        wanted = instruction or self._instruction
        head = [self._ids(piece) for piece in self._family.head_pieces(query, wanted)]
        tail = [self._ids(piece) for piece in self._family.tail_pieces(wanted)]
        bos = np.array(self._bos, dtype=np.int64)
        return np.concatenate([bos, *head]), np.concatenate(tail)

    def _ids(self, text: str) -> Ids:
        ids = self.texts.one(text)
        if ids is None:
            raise ValueError("the tokenizer failed on the prompt itself")
        return ids


def _answer_ids(family: CausalFamily, texts: TextTokenizer) -> list[int]:
    answers = [family.positive] + ([family.negative] if family.negative else [])
    found = []
    for answer in answers:
        ids = texts.one(answer)
        if ids is None or len(ids) != 1:
            raise ModelUnavailable(
                f"the tokenizer has no single token {answer!r}, which the template"
                f" {family.name} reads the score from; it is not a model of that family"
            )
        found.append(int(ids[0]))
    return found
