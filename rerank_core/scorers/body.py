"""Runs a transformer over tokenised pairs: packed, where its attention can be plugged, or padded.

It does not know how pairs are tokenised, nor which way is chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rerank_core.batching import Prefixes
from rerank_core.scorers.device import in_float32, products_in_tf32
from rerank_core.scorers.encoder import TokenizedPair
from rerank_core.scorers.heads import Pool, one_logit
from rerank_core.scorers.passes.graphs import Graphs
from rerank_core.scorers.passes.rows import Row, Rows
from rerank_core.scorers.passes.transfer import upload


class NotPackable(Exception):
    """The model cannot be scored packed; the message says why."""


class Forward:
    """A batch in, one logit a pair out, on the device and not waited for.

    `module` holds the weights whose precision is the body's; `parts` move with it. `backend` is how
    it computes, as it is shown; `tf32` is how products of float32 are rounded.
    """

    backend = "cross_encoder"
    padded = True
    kernel = False
    shares = False
    tf32 = False
    graphs: Graphs | None = None

    def __init__(self, module: Any, *parts: Any, positive: int | None = None) -> None:
        self.module, self._parts, self.positive = module, parts, positive
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move body and head."""
        self.device = device
        for part in (self.module, *self._parts):
            part.to(device)

    @contextlib.contextmanager
    def exactly(self) -> Iterator[None]:
        """Compute in float32 for a while, and round no products."""
        tf32, self.tf32 = self.tf32, False
        try:
            with in_float32(self.module):
                yield
        finally:
            self.tf32 = tf32

    def prefixes(self, batch: Sequence[TokenizedPair]) -> Prefixes:
        """Return what each pair begins with, where a pass computes what several begin with once."""
        return [(pair.head.tobytes(), len(pair.head)) for pair in batch] if self.shares else None

    @torch.inference_mode()
    def __call__(self, batch: Sequence[TokenizedPair]) -> Tensor:
        """Return one logit a pair."""
        return one_logit(self._logits(batch), self.positive)

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        raise NotImplementedError


class PackedForward(Forward):
    """The body on one row without padding, the head on one state of each pair.

    `graphs` replay small passes and `compiled` is the body for the others, where they are set.
    """

    backend, padded = "packed", False
    compiled: Any = None

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
        row = self._rows.pack(batch, share=self.shares)
        if kernel and self.graphs is not None:
            logits = self.graphs.logits(row)
            if logits is not None:
                return logits
        body = self.compiled if kernel and self.compiled is not None else self.module
        parts = upload(row.arrays(), self.device)
        return self._compute(body, *row.arguments(parts, kernel=kernel))

    def compute_filled(self, row: Row, parts: Sequence[Tensor], longest: int) -> Tensor:
        """Return the logits of a row whose arrays lie on the device, by the kernel."""
        found = self._compute(self.module, *row.arguments(parts, kernel=True, longest=longest))
        return one_logit(found, self.positive)

    def _compute(self, body: Any, inputs: Any, bounds: Tensor) -> Any:
        with products_in_tf32() if self.tf32 else contextlib.nullcontext():
            hidden = body(**inputs).last_hidden_state[0]
        return self._head(self._pool(hidden, bounds))


class PaddedForward(Forward):
    """The whole model on a padded rectangle; once `head` is set, its body and each last token."""

    head: nn.Module | None = None

    def __init__(self, model: Any, rows: Rows, positive: int | None) -> None:
        body = body_of(model)
        super().__init__(model if body is None else body, model, positive=positive)
        self._model, self._rows = model, rows

    def _logits(self, batch: Sequence[TokenizedPair]) -> Any:
        inputs = self._rows.pad(batch, self.device)
        if self.head is None:
            # Half precision ends with the body; what stands behind it is float32. For this call
            # alone: the same body may serve packed, where every state would be copied for nothing.
            with self.module.register_forward_hook(_in_float32):
                return self._model(**inputs).logits
        hidden = self.module(**inputs, use_cache=False).last_hidden_state
        # Padding stands behind: no token of a causal body sees it.
        last = inputs["attention_mask"].sum(1) - 1
        return self.head(hidden[torch.arange(len(batch), device=self.device), last].float())

    @torch.inference_mode()
    def own_score(self, pair: TokenizedPair) -> Tensor:
        """Return a pair's score by the model's own code, of its last token where it has all.

        As where a head stands apart, half precision ends with the body.
        """
        inputs = self._rows.pad([pair], self.device)
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(self.module.register_forward_hook(_in_float32))
            for part in self._model.children():
                # Where a part of the body is called (OPT's), the body's hook sees nothing.
                if part is not self.module:
                    hooks.enter_context(part.float().register_forward_pre_hook(_of_float32))
            logits: Tensor = self._model(**inputs, use_cache=False).logits
        return one_logit(logits.flatten(0, -2)[-1:], self.positive)


def _in_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    for name, value in output.items() if hasattr(output, "items") else ():
        if isinstance(value, Tensor) and value.is_floating_point():
            output[name] = value.float()
    return output


def _of_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    floats = (isinstance(value, Tensor) and value.is_floating_point() for value in inputs)
    return tuple(v.float() if real else v for v, real in zip(inputs, floats, strict=True))


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
