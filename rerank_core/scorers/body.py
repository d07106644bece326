"""Runs a transformer over tokenised pairs: packed, where its attention can be plugged, or padded.

It does not know how pairs are tokenised, nor which way is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rerank_core.scorers.attention import ATTENTION_NAME, Segments, register_attention
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.scorers.heads import Pool, one_logit
from rerank_core.scorers.passes.transfer import upload

Types = tuple[tuple[int, int], tuple[int, ...]] | None


class NotPackable(Exception):
    """The model cannot be scored packed; the message says why."""


class Rows:
    """Lays tokenised pairs out as the model expects them, with their type and position ids.

    `types` are those of a frame; `offset` is the model's first position.
    """

    def __init__(self, types: Types, offset: int, pad_id: int, *, left: bool = False) -> None:
        self._types = types
        self._offset = offset
        self._pad_id = pad_id
        self._left = left

    def pack(
        self, batch: Sequence[TokenizedPair], device: torch.device, *, kernel: bool
    ) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Return the body's arguments, and where each pair starts in the row and its length."""
        lengths = [len(pair) for pair in batch]
        ids = np.concatenate([part for pair in batch for part in (pair.head, pair.tail)])
        ends = np.cumsum([0, *lengths])
        positions = np.arange(len(ids)) - np.repeat(ends[:-1], lengths) + self._offset
        arrays = [ids, positions, ends, np.array(lengths)]
        if self._types is not None:
            arrays.append(self._type_row(batch, lengths))
        ids_row, position_row, bounds, sizes, *types = upload(arrays, device)
        inputs: dict[str, Any] = {
            "input_ids": ids_row[None],
            "position_ids": position_row[None],
            "segments": Segments.of(lengths, bounds, kernel=kernel),
        }
        if types:
            inputs["token_type_ids"] = types[0][None]
        return inputs, bounds[:-1], sizes

    def _type_row(self, batch: Sequence[TokenizedPair], lengths: Sequence[int]) -> Any:
        both, behind = self._types or ((0, 0), ())
        halves = [half for pair in batch for half in (len(pair.head), len(pair.tail))]
        row = np.repeat(np.array(both * len(batch)), halves)
        ends = np.cumsum(lengths)
        for back, kind in enumerate(reversed(behind), start=1):
            if kind != both[1]:
                row[ends - back] = kind
        return row

    def pad(self, batch: Sequence[TokenizedPair], device: torch.device) -> dict[str, Tensor]:
        """Return the whole model's arguments for the same pairs, as a padded rectangle."""
        lengths = [len(pair) for pair in batch]
        shape = (len(batch), max(lengths))
        columns = np.arange(shape[1])
        filled = np.array(lengths)[:, None]
        mask = columns >= shape[1] - filled if self._left else columns < filled
        ids = np.full(shape, self._pad_id)
        ids[mask] = np.concatenate([part for pair in batch for part in (pair.head, pair.tail)])
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self._types is not None:
            types = np.zeros(shape, dtype=np.int64)
            types[mask] = self._type_row(batch, lengths)
            arrays["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


class PackedForward:
    """The body on one row without padding, the head on one state of each pair."""

    padded = False

    def __init__(
        self, body: Any, head: nn.Module, pool: Pool, rows: Rows, positive: int | None
    ) -> None:
        self.module, self._head, self._pool, self._rows = body, head, pool, rows
        self._positive = positive
        self.kernel = False
        self.device = torch.device("cpu")
        # Nothing is generated: a cache would keep and copy the keys and values of every layer.
        body.config.use_cache = False

    def to(self, device: torch.device) -> None:
        """Move body and head."""
        self.device = device
        self.module.to(device)
        self._head.to(device)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[TokenizedPair]) -> Tensor:
        """Return one logit a pair, on the device, not waited for."""
        # The kernel knows half precision only; a pair scored again in float32 goes in runs.
        kernel = self.kernel and next(self.module.parameters()).dtype != torch.float32
        inputs, starts, lengths = self._rows.pack(batch, self.device, kernel=kernel)
        hidden = self.module(**inputs).last_hidden_state[0]
        return one_logit(self._head(self._pool(hidden, starts, lengths)), self._positive)


class PaddedForward:
    """The whole model on a padded rectangle; with `head`, its body alone and each last token."""

    padded = True

    def __init__(
        self, model: Any, head: nn.Module | None, rows: Rows, positive: int | None
    ) -> None:
        body = body_of(model)
        self.module = model if body is None else body
        self._model, self._head, self._rows, self._positive = model, head, rows, positive
        self.device = torch.device("cpu")
        if head is None and body is not None:
            # Half precision ends with the body; what stands behind it is float32.
            body.register_forward_hook(_in_float32)

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.device = device
        (self._model if self._head is None else self.module).to(device)
        if self._head is not None:
            self._head.to(device)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[TokenizedPair]) -> Tensor:
        """Return one logit a pair, on the device, not waited for."""
        inputs = self._rows.pad(batch, self.device)
        if self._head is None:
            return one_logit(self._model(**inputs).logits, self._positive)
        hidden = self.module(**inputs, use_cache=False).last_hidden_state
        # Padding stands behind: no token of a causal body sees it.
        last = inputs["attention_mask"].sum(1) - 1
        states = hidden[torch.arange(len(batch), device=self.device), last].float()
        return one_logit(self._head(states), self._positive)


def _in_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    for name, value in output.items() if hasattr(output, "items") else ():
        if isinstance(value, Tensor) and value.is_floating_point():
            output[name] = value.float()
    return output


def body_of(model: PreTrainedModel) -> Any:
    """Return the transformer inside a model with a head, None where they are one."""
    body = getattr(model, model.base_model_prefix, None)
    return None if body is model or not isinstance(body, nn.Module) else body


def refuse_unpackable(model: PreTrainedModel) -> None:
    """Raise NotPackable for a model whose attention cannot be plugged."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise NotPackable(f"{type(model).__name__} is an encoder with a decoder")
    if body_of(model) is None:
        raise NotPackable(f"{type(model).__name__} does not keep its body apart from its head")
    if not model._supports_attention_backend:
        raise NotPackable(f"{type(model).__name__} has an attention of its own")


def plug_attention(model: PreTrainedModel) -> None:
    """Let the model attend in packed segments."""
    register_attention()
    model.set_attn_implementation(ATTENTION_NAME)
