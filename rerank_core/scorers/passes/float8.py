"""Linear layers on float8 tensor cores, a scale for each row of the input and of the weight.

It does not know bodies. Not yet run on a GPU; a CPU computes the same scheme without such products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 448.0  # of float8_e4m3fn
# Tensor cores take both sides of a weight in multiples of so many.
_MULTIPLE = 16


def to_float8(body: Any) -> None:
    """Replace the linear layers of a body; one that tensor cores cannot take stays."""
    for module in list(body.modules()):
        for name, child in module.named_children():
            sides = (child.in_features, child.out_features) if type(child) is nn.Linear else (1,)
            if not any(side % _MULTIPLE for side in sides):
                setattr(module, name, Float8Linear(child))


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in float8 and the factor of each, (rows, 1) in float32."""
    wide = rows.float()
    scale = wide.abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scale).to(torch.float8_e4m3fn), scale


class Float8Linear(nn.Module):
    """Stands where a linear layer was, whose weight it rounds.

    Rows in float32, as a score that is computed again has them, are not rounded.
    """

    eight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        eight, scale = quantise_rows(linear.weight.detach())
        # Buffers: what changes the precision of weights leaves them alone.
        self.register_buffer("eight", eight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply rows of any leading shape."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if rows.dtype == torch.float32:
            out = nn.functional.linear(rows, self.eight.float() * self.scale, self.bias)
        else:
            out = self._multiply(*quantise_rows(rows), rows.dtype)
        return out.view(*inputs.shape[:-1], -1)

    def _multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        if rows.is_cuda:
            options: Any = {"scale_a": scale, "scale_b": self.scale.t(), "bias": self.bias}
            product: Any = torch._scaled_mm
            found: Tensor = product(rows, self.eight.t(), out_dtype=dtype, **options)
            return found
        bias = None if self.bias is None else self.bias.float()
        wide = nn.functional.linear(rows.float() * scale, self.eight.float() * self.scale, bias)
        return wide.to(dtype)
