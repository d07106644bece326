"""Attention over packed segments, plugged into transformers' attention interface.

Many pairs lie end to end in one row; each token sees only its own pair. It does not know models,
heads or batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION_NAME = "rerank_segments"


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each pair lies in the packed row.

    `lengths` in tokens, in row order; `bounds` the same on the device, as an int32 running sum
    that starts with 0 (`None` where only the CPU path can run).
    """

    lengths: tuple[int, ...]
    bounds: Tensor | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Describe segments of these lengths for a model on `device`."""
        if device.type != "cuda":
            return cls(tuple(lengths))
        bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        bounds[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
        return cls(tuple(lengths), bounds.to(device, non_blocking=True))

    def runs(self) -> list[tuple[int, int, int]]:
        """Group neighbours of equal length: (first token, segments in the group, length)."""
        runs: list[tuple[int, int, int]] = []
        start = 0
        for length in self.lengths:
            if runs and runs[-1][2] == length:
                first, count, _ = runs[-1]
                runs[-1] = (first, count + 1, length)
            else:
                runs.append((start, 1, length))
            start += length
        return runs


def register_attention() -> None:
    """Make `ATTENTION_NAME` known to transformers. Doing it twice does no harm."""
    AttentionInterface.register(ATTENTION_NAME, segment_attention)


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    segments: Segments,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend inside each segment; shapes as transformers' other attention functions take them.

    `query`, `key`, `value`: (1, heads, tokens, size). Returns (1, tokens, heads, size).
    `sliding_window` is, as in transformers, one more than the farthest visible distance.
    """
    if getattr(module, "is_causal", False):
        raise ValueError("packed segments are for encoders; this module is causal")
    kernel = _varlen_kernel(query.dtype, sliding_window is not None)
    if segments.bounds is not None and kernel is not None:
        return kernel(query, key, value, segments, scaling, sliding_window), None
    return _attend_in_runs(query, key, value, segments, scaling, sliding_window), None


def _attend_in_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Dense attention per run of equal lengths: nothing is padded and no pair sees another."""
    _, heads, tokens, _size = query.shape
    out = query.new_empty((1, tokens, heads, value.shape[-1]))
    groups = heads != key.shape[1]
    for first, count, length in segments.runs():
        stop = first + count * length
        q, k, v = (
            part[0, :, first:stop].reshape(part.shape[1], count, length, -1).transpose(0, 1)
            for part in (query, key, value)
        )
        mask = _near(length, sliding_window, query.device)
        seen = scaled_dot_product_attention(q, k, v, mask, scale=scaling, enable_gqa=groups)
        out[0, first:stop] = seen.transpose(1, 2).flatten(0, 1)
    return out


def _near(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """Return which tokens see each other, or None where all do."""
    if sliding_window is None or length <= sliding_window:
        return None
    places = torch.arange(length, device=device)
    return (places[:, None] - places[None, :]).abs() < sliding_window


Kernel = Callable[[Tensor, Tensor, Tensor, Segments, float | None, int | None], Tensor]


@cache
def _varlen_kernel(dtype: torch.dtype, windowed: bool) -> Kernel | None:
    """Find a CUDA kernel for packed rows: torch's own; None without it."""
    if dtype not in (torch.float16, torch.bfloat16) or not torch.cuda.is_available():
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if windowed and "window_size" not in known:
        return None

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: Segments,
        scaling: float | None,
        sliding_window: int | None,
    ) -> Tensor:
        longest = max(segments.lengths)
        options: dict[str, Any] = {}
        if "scale" in known:
            options["scale"] = scaling
        elif scaling is not None:
            # Older torch always divides by the root of the head size; make up for it beforehand.
            query = query * (scaling * query.shape[-1] ** 0.5)
        if sliding_window is not None:
            options["window_size"] = (sliding_window - 1, sliding_window - 1)
        if query.shape[1] != key.shape[1]:
            options["enable_gqa"] = True
        bounds: Any = segments.bounds
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        packed: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)
        seen: Tensor = packed.unsqueeze(0)
        return seen

    return attend
