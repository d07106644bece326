"""From hidden states to one logit a pair, in float32: which tokens are read, and by what.

It does not know how hidden states were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

# Of a packed row's hidden states (tokens, size), with the places that bound its pairs, one state
# per pair.
Pool = Callable[[Tensor, Tensor], Tensor]


def first_token(hidden: Tensor, bounds: Tensor) -> Tensor:
    """Read each pair's first token."""
    return hidden.index_select(0, bounds[:-1]).float()


def last_token(hidden: Tensor, bounds: Tensor) -> Tensor:
    """Read each pair's last token."""
    return hidden.index_select(0, bounds[1:] - 1).float()


def mean_of_tokens(hidden: Tensor, bounds: Tensor) -> Tensor:
    """Average each pair's tokens."""
    return torch.segment_reduce(hidden.float(), "mean", offsets=bounds, axis=0)


def one_row(hidden: Tensor, bounds: Tensor) -> Tensor:
    """Read what a body left that computed one token of each segment; pairs are the last of them."""
    return hidden[1 - len(bounds) :].float()


class RowsHead(nn.Module):
    """A row of an output layer, less another: a classifier's, or those of the answers' tokens."""

    def __init__(self, layer: Any, plus: int, minus: int | None = None) -> None:
        super().__init__()
        self.weight = self._row(layer.weight, plus, minus)
        bias = getattr(layer, "bias", None)
        self.bias = None if bias is None else self._row(bias, plus, minus)

    @staticmethod
    def _row(values: Tensor, plus: int, minus: int | None) -> nn.Parameter:
        row = values.detach()[plus : plus + 1].float()
        if minus is not None:
            row = row - values.detach()[minus : minus + 1].float()
        return nn.Parameter(row, requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (pairs, 1) logits."""
        return nn.functional.linear(pooled, self.weight, self.bias)


class ClassifierHead(nn.Module):
    """What is left of a classification model when its body is taken out, whatever it is called."""

    def __init__(self, model: Any, body: Any) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, _Gathered(getattr(body, "pooler", None)))
        if hasattr(body, "pooler"):
            body.pooler = None
        self._model = model

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (pairs, outputs) logits; to the head every pair looks like a text of one token."""
        logits: Tensor = self._model(inputs_embeds=pooled.unsqueeze(1)).logits
        return logits


class _Gathered(nn.Module):
    """Stands where the body was: passes on hidden states that are already computed."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


def one_logit(logits: Tensor, positive: int | None) -> Tensor:
    """Return one logit a pair: the only output, or of two the positive minus the other."""
    logits = logits.float()
    if logits.ndim < 2 or logits.shape[1] == 1:
        return logits.reshape(-1)
    if positive is None:
        raise ValueError("nothing says which of several outputs means relevant")
    return logits[:, positive] - logits[:, 1 - positive]
