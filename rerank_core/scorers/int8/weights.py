"""Weights as int8, with a scale per output channel, laid out for the tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rerank_core.scorers.int8 import kernels
from rerank_core.scorers.int8.instructions import SHAPE
from rerank_core.scorers.int8.threads import share_out


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 and the scale of each (..., 1): along the last dimension one scale."""
    real = rows.detach().float()
    scale = real.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return (real / scale).round_().to(torch.int8), scale


def pack(linear: nn.Linear) -> tuple[Any, Any, int, int]:
    """Return a linear layer as the kernels take it: panels, columns, inputs, outputs.

    A panel is SHAPE.width outputs, four inputs of each side by side. Of each output `columns` has,
    panel by panel, the bits of its bias, then of each group of inputs the sum of its weights and
    the bits of their scale.
    """
    outputs, inputs = linear.weight.shape
    width, group = SHAPE.width, kernels.GROUP
    panels, groups, quads = -(-outputs // width), -(-inputs // group), -(-inputs // 4)
    real = torch.zeros(panels * width, groups * group)
    real[:outputs, :inputs] = linear.weight.detach()
    whole, scale = rounded(real.view(-1, groups, group))
    columns = torch.zeros(1 + 2 * groups, panels * width, dtype=torch.int32)
    if linear.bias is not None:
        columns[0, :outputs] = linear.bias.detach().float().view(torch.int32)
    columns[1::2] = whole.sum(2, dtype=torch.int32).T
    columns[2::2] = scale[..., 0].T.contiguous().view(torch.int32)
    laid = whole.view(panels * width, -1)[:, : 4 * quads].reshape(panels, width, quads, 4)
    per_panel = columns.view(-1, panels, width).transpose(0, 1)
    return (
        laid.transpose(1, 2).reshape(panels, -1).numpy(),
        per_panel.reshape(panels, -1).numpy(),
        inputs,
        outputs,
    )


class QuantizedEmbedding(nn.Module):
    """Rows of int8 with a scale each; what is looked up is float32."""

    rows: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        rows, scale = rounded(embedding.weight)
        self.register_buffer("rows", rows)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Look ids up."""
        return self.rows[ids].float() * self.scale[ids]


class QuantizedLinear(nn.Module):
    """Stands where a linear layer was: float32 in and out."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weights = pack(linear)

    def forward(self, states: Tensor) -> Tensor:
        """Multiply (..., in_features)."""
        rows = states.detach().reshape(-1, self.in_features).float().contiguous().numpy()
        weights = self._weights
        out = np.empty((len(rows), len(weights[0]) * SHAPE.width), np.float32)
        share_out(len(rows), lambda low, high: kernels.project(rows, low, high, weights, out))
        found = torch.from_numpy(out)[:, : self.out_features]
        return found.reshape(*states.shape[:-1], self.out_features)
