"""Scores encoders with a classification head on packed tokens: no padding anywhere.

The body runs on one row in which pairs lie end to end, the head in float32 on the first token of
each. Which architectures that is right for is not a list: every model is compared with its own
padded result while loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rerank_core.config import ScorerConfig
from rerank_core.limits import usable_length
from rerank_core.scorers.attention import ATTENTION_NAME, Segments, register_attention
from rerank_core.scorers.cpu_linear import can_quicken, quicken
from rerank_core.scorers.device import DTYPES, in_float32, resolve_device, set_precision
from rerank_core.scorers.encoder import (
    PairTemplate,
    PairTokenizer,
    TemplateUnknown,
    TokenizedPair,
)
from rerank_core.scorers.loading import (
    Source,
    declared_activation,
)
from rerank_core.scorers.pipeline import score_pool
from rerank_core.scorers.runner import BatchRunner
from rerank_core.types import Float32s, PairScores, QueryDocumentPair, ScorerInfo

# Measured: on CPUs larger batches fall out of the cache; GPUs want to be full.
DEFAULT_BUDGETS = {"cpu": 2048, "cuda": 65536}
# Characters tokenised ahead, per token of budget: several batches' worth.
_CHUNK_CHARACTERS = 16
_AGREEMENT = 1e-4
_PROBE_PAIRS = (
    QueryDocumentPair("how many people live in the town", "About three million live there."),
    QueryDocumentPair("what", "The bridge was finished in 1932, and opened by the mayor " * 3),
    QueryDocumentPair("中国的首都是哪里?", "北京是中国的政治中心和首都。"),
)


def position_offset(body: Any) -> int:
    """RoBERTa types start counting after the id of the padding token; the others at 0."""
    embeddings: Any = getattr(body, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0


def readable_length(config: ScorerConfig, tokenizer: Any, model_config: Any, offset: int) -> int:
    """Return how many tokens of a pair the model can read.

    `offset` is how many positions the model leaves unused (pad id + 1 for RoBERTa types).
    """
    positions = getattr(model_config, "max_position_embeddings", None)
    table = positions - offset if positions and positions > 0 else None
    return usable_length(config.model, config.max_length, int(tokenizer.model_max_length), table)


class NotPackable(Exception):
    """The model cannot be scored packed; the message says why."""


class PackedScorer:
    """A `*ForSequenceClassification` encoder, unpadded."""

    def __init__(self, source: Source, model: PreTrainedModel, tokenizer: Any) -> None:
        config, model_config = source.config, model.config
        self._device = torch.device("cpu")
        body = _body_of(model)
        offset = position_offset(body)
        try:
            self._tokens = PairTokenizer(
                tokenizer,
                readable_length(config, tokenizer, model_config, offset),
                config.max_query_tokens,
            )
        except TemplateUnknown as error:
            raise NotPackable(str(error)) from error
        self._rows = _Rows(self._tokens.template, offset, model_config.pad_token_id)
        probes = [pair for pair in self._tokens.encode(_PROBE_PAIRS)[0] if pair is not None]
        expected = _padded_logits(model, self._rows, probes)
        self._head = _detach_head(model, body)
        self._body = body
        if resolve_device(config).type == "cpu" and config.dtype == "float32" and can_quicken():
            quicken(body)
        self._check_agreement(probes, expected)
        self._device = resolve_device(config)
        set_precision(self._body, DTYPES[config.dtype])
        self._body.to(self._device)
        self._head.to(self._device)
        self._info = ScorerInfo(
            model=source.name,
            revision=config.revision,
            backend="packed",
            device=str(self._device),
            dtype=config.dtype,
            max_length=self._tokens.max_length,
            max_batch_tokens=config.max_batch_tokens or DEFAULT_BUDGETS[self._device.type],
            activation=declared_activation(source, model_config),
            fingerprint=config.fingerprint(),
        )

        budget = self._info.max_batch_tokens
        self._runner = BatchRunner(self._forward, self._score_in_float32, budget, padded=False)
        # On a CPU a tokenising thread would only take cores from the model.
        on_gpu = self._device.type == "cuda"
        self._chunk_characters = budget * _CHUNK_CHARACTERS if on_gpu else None

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a pair that cannot be scored fails alone."""
        return score_pool(pairs, self._tokens.encode, self._runner, self._chunk_characters)

    @property
    def document_tokens(self) -> PairTokenizer:
        """What splitting long documents needs to know."""
        return self._tokens

    def warm_up(self) -> None:
        """Score one batch of the largest size, so that the first caller meets a warm device."""
        longest = self._tokens.longest_pair()
        count = max(1, self._info.max_batch_tokens // len(longest))
        self._runner.run([longest] * count)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[TokenizedPair]) -> Tensor:
        inputs, starts = self._rows.pack(batch, self._device)
        hidden = self._body(**inputs).last_hidden_state
        # (pairs, 1, size): to the head every pair looks like a text of one token.
        first = hidden[0].index_select(0, starts).unsqueeze(1).float()
        logits: Tensor = self._head(inputs_embeds=first).logits
        return logits.squeeze(-1)

    def _score_in_float32(self, pair: TokenizedPair) -> float:
        with in_float32(self._body):
            return float(self._forward([pair])[0])

    def _check_agreement(self, probes: Sequence[TokenizedPair], expected: Float32s) -> None:
        try:
            packed = self._forward(probes).numpy()
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise NotPackable(f"its attention does not take packed rows ({error})") from error
        difference = float(np.abs(packed - expected).max())
        if not difference <= _AGREEMENT * max(1.0, float(np.abs(expected).max())):
            raise NotPackable(f"packed and padded scores differ by {difference:.2g}")


class _Rows:
    """Lays tokenised pairs end to end, with the position and type ids that the model expects."""

    def __init__(self, template: PairTemplate, offset: int, pad_id: int | None) -> None:
        self._types = template.types
        self._offset = offset
        self._fill = pad_id or 0
        self._pad_id = pad_id if offset else None

    def pack(
        self, batch: Sequence[TokenizedPair], device: torch.device
    ) -> tuple[dict[str, Any], Tensor]:
        """Return the body's arguments and where each pair starts in the row."""
        lengths = [len(pair) for pair in batch]
        ids = np.concatenate([part for pair in batch for part in (pair.head, pair.tail)])
        starts = np.cumsum([0, *lengths[:-1]])
        positions = np.arange(len(ids)) - np.repeat(starts, lengths) + self._offset
        if self._pad_id is not None and (ids == self._pad_id).any():
            positions = self._positions_around_pads(ids, lengths)

        def on_device(array: Any) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        inputs: dict[str, Any] = {
            "input_ids": on_device(ids)[None],
            "position_ids": on_device(positions)[None],
            "segments": Segments.of(lengths, device),
        }
        if self._types is not None:
            halves = [half for pair in batch for half in (len(pair.head), len(pair.tail))]
            types = np.repeat(np.array(self._types * len(batch)), halves)
            inputs["token_type_ids"] = on_device(types)[None]
        return inputs, on_device(starts)

    def pad(self, batch: Sequence[TokenizedPair]) -> dict[str, Tensor]:
        """Return the whole model's arguments for the same pairs as a padded rectangle."""
        shape = (len(batch), max(len(pair) for pair in batch))
        ids = torch.full(shape, self._fill)
        mask = torch.zeros(shape, dtype=torch.long)
        types = torch.zeros(shape, dtype=torch.long)
        for row, pair in enumerate(batch):
            ids[row, : len(pair)] = torch.from_numpy(np.concatenate((pair.head, pair.tail)))
            mask[row, : len(pair)] = 1
            if self._types is not None:
                types[row, : len(pair)] = self._types[1]
                types[row, : len(pair.head)] = self._types[0]
        inputs = {"input_ids": ids, "attention_mask": mask}
        return inputs if self._types is None else {**inputs, "token_type_ids": types}

    def _positions_around_pads(self, ids: Any, lengths: Sequence[int]) -> Any:
        # RoBERTa counts only tokens that are not padding, also where a text spells "<pad>".
        real = ids != self._pad_id
        parts = np.split(real, np.cumsum(lengths)[:-1])
        counted = np.concatenate([np.cumsum(part) for part in parts])
        return counted * real + self._offset - 1


class _Gathered(nn.Module):
    """Stands where the body was: passes on hidden states that are already computed."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


def _body_of(model: PreTrainedModel) -> Any:
    body = getattr(model, model.base_model_prefix, None)
    if not isinstance(body, nn.Module) or body is model:
        raise NotPackable(f"{type(model).__name__} does not keep its body apart from its head")
    if not model._supports_attention_backend:
        raise NotPackable(f"{type(model).__name__} has an attention of its own")
    if getattr(model.config, "is_decoder", False):
        raise NotPackable(f"{type(model).__name__} is a decoder")
    if getattr(model.config, "classifier_pooling", "cls") != "cls":
        raise NotPackable("its head reads more than the first token")
    return body


def _detach_head(model: PreTrainedModel, body: Any) -> nn.Module:
    """Take the body out; what is left is the head, whatever its architecture calls it."""
    register_attention()
    model.set_attn_implementation(ATTENTION_NAME)
    setattr(model, model.base_model_prefix, _Gathered(getattr(body, "pooler", None)))
    if hasattr(body, "pooler"):
        body.pooler = None
    return model


@torch.inference_mode()
def _padded_logits(
    model: PreTrainedModel, rows: _Rows, probes: Sequence[TokenizedPair]
) -> Float32s:
    """Score the probes the ordinary way, as what packed scores are held against."""
    logits: Float32s = model(**rows.pad(probes)).logits.squeeze(-1).float().numpy()
    return logits
