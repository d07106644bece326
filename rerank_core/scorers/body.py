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

from rerank_core.scorers.attention import Segments
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
        self._types, self._offset, self._pad_id, self._left = types, offset, pad_id, left

    def pack(
        self, batch: Sequence[TokenizedPair], device: torch.device, *, kernel: bool
    ) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Return the body's arguments, and where each pair starts in the row and its length."""
        lengths, ids = [len(pair) for pair in batch], _ids(batch)
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
        ids[mask] = _ids(batch)
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self._types is not None:
            types = np.zeros(shape, dtype=np.int64)
            types[mask] = self._type_row(batch, lengths)
            arrays["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _ids(batch: Sequence[TokenizedPair]) -> Any:
    return np.concatenate([part for pair in batch for part in (pair.head, pair.tail)])


class Forward:
    """A batch in, one logit a pair out, on the device and not waited for.

    `module` holds the weights whose precision is the body's; `parts` move with it. `backend` is how
    it computes, as it is shown.
    """

    backend = "cross_encoder"
    padded = True
    kernel = False

    def __init__(self, module: Any, *parts: Any, positive: int | None = None) -> None:
        self.module, self._parts, self._positive = module, parts, positive
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move body and head."""
        self.device = device
        for part in (self.module, *self._parts):
            part.to(device)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[TokenizedPair]) -> Tensor:
        """Return one logit a pair."""
        return one_logit(self._logits(batch), self._positive)

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        raise NotImplementedError


class PackedForward(Forward):
    """The body on one row without padding, the head on one state of each pair."""

    backend, padded = "packed", False

    def __init__(
        self, body: Any, head: nn.Module, pool: Pool, rows: Rows, positive: int | None
    ) -> None:
        super().__init__(body, head, positive=positive)
        self._head, self._pool, self._rows = head, pool, rows
        # Nothing is generated: a cache would keep and copy the keys and values of every layer.
        body.config.use_cache = False

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        # The kernel knows half precision only; a pair scored again in float32 goes in runs.
        kernel = self.kernel and next(self.module.parameters()).dtype != torch.float32
        inputs, starts, lengths = self._rows.pack(batch, self.device, kernel=kernel)
        hidden = self.module(**inputs).last_hidden_state[0]
        return self._head(self._pool(hidden, starts, lengths))


class PaddedForward(Forward):
    """The whole model on a padded rectangle; with `head`, its body alone and each last token."""

    def __init__(
        self, model: Any, head: nn.Module | None, rows: Rows, positive: int | None
    ) -> None:
        body = body_of(model)
        rest = model if head is None else head
        super().__init__(model if body is None else body, rest, positive=positive)
        self._model, self._head, self._rows = model, head, rows

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        inputs = self._rows.pad(batch, self.device)
        if self._head is None:
            # Half precision ends with the body; what stands behind it is float32. For this call
            # alone: the same body may serve packed, where every state would be copied for nothing.
            with self.module.register_forward_hook(_in_float32):
                return self._model(**inputs).logits
        hidden = self.module(**inputs, use_cache=False).last_hidden_state
        # Padding stands behind: no token of a causal body sees it.
        last = inputs["attention_mask"].sum(1) - 1
        return self._head(hidden[torch.arange(len(batch), device=self.device), last].float())


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
    reason = None
    if getattr(model.config, "is_encoder_decoder", False):
        reason = "is an encoder with a decoder"
    elif body_of(model) is None:
        reason = "does not keep its body apart from its head"
    elif not model._supports_attention_backend:
        reason = "has an attention of its own"
    if reason is not None:
        raise NotPackable(f"{type(model).__name__} {reason}")
