"""From hidden states to one logit a pair, in float32: which tokens are read, and by what.

It does not know how hidden states were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

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


def keep_answers(layer: nn.Module, answers: list[int]) -> None:
    """Let a language model's output layer give the logits of these tokens and no others."""
    for name, values in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(values.detach()[answers], requires_grad=False))


class OwnHead(nn.Module):
    """What is left of a model when its body is taken out, whatever it is called: its own code.

    Language models are among those that scale, or bound, what their output layer gives.
    """

    def __init__(self, model: Any, body: Any) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, _Gathered(body))
        if hasattr(body, "pooler"):
            body.pooler = None
        self._model = model

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (pairs, outputs) logits; to the head every pair looks like a text of one token."""
        logits: Tensor = self._model(inputs_embeds=pooled.unsqueeze(1)).logits
        return logits[:, 0] if logits.ndim > 2 else logits


class _Gathered(nn.Module):
    """Stands where the body was: passes on hidden states that are already computed."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.pooler = getattr(body, "pooler", None)
        # Numbers of a body may be its head's, too (FalconH1's `lm_head_multiplier`).
        for name, value in vars(body).items():
            if isinstance(value, int | float) and name not in vars(self):
                setattr(self, name, value)

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Output:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return _Output(last_hidden_state=inputs_embeds, pooler_output=pooled)


class _Output(BaseModelOutputWithPoolingAndCrossAttentions):
    # Of a mixture of experts its head wants more.
    router_logits = None


def one_logit(logits: Tensor, positive: int | None) -> Tensor:
    """Return one logit a pair: the only output, or of two the positive minus the other."""
    logits = logits.float()
    if logits.ndim < 2 or logits.shape[1] == 1:
        return logits.reshape(-1)
    if positive is None:
        raise ValueError("nothing says which of several outputs means relevant")
    return logits[:, positive] - logits[:, 1 - positive]
