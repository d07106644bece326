"""Attention over packed segments, plugged into transformers' attention interface.

Many pairs lie end to end in one row; each token sees only its own pair, all of it or, in a causal
model, what stands before. It does not know models, heads or batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION_NAME = "rerank_segments"
# FlashAttention, which torch's kernel for packed rows is, starts with Ampere.
_KERNEL_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each pair lies in the packed row.

    `runs` groups neighbours of equal length: (first token, segments in the group, length).
    `bounds`, a running sum on the device (int32, from 0), stands where the kernel is to run.
    """

    longest: int
    runs: tuple[tuple[int, int, int], ...]
    bounds: Tensor | None = None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, *, kernel: bool) -> Segments:
        """Describe segments of these lengths, in row order."""
        if kernel:
            bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
            bounds[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
            return cls(max(lengths), (), bounds.to(device, non_blocking=True))
        runs: list[tuple[int, int, int]] = []
        start = 0
        for length in lengths:
            if runs and runs[-1][2] == length:
                first, count, _ = runs[-1]
                runs[-1] = (first, count + 1, length)
            else:
                runs.append((start, 1, length))
            start += length
        return cls(max(lengths), tuple(runs))


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
    options: dict[str, Any] = {
        "causal": bool(getattr(module, "is_causal", False)),
        "scaling": scaling,
        "sliding_window": sliding_window,
    }
    attend = _attend_in_runs if segments.bounds is None else _attend_with_kernel
    return attend(query, key, value, segments, **options), None


def kernel_fits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch's kernel for packed rows exists for this device and precision."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= _KERNEL_CAPABILITY


def _attend_in_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    *,
    causal: bool,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Dense attention per run of equal lengths: nothing is padded and no pair sees another."""
    _, heads, tokens, _size = query.shape
    out = query.new_empty((1, tokens, heads, value.shape[-1]))
    groups = heads != key.shape[1]
    for first, count, length in segments.runs:
        stop = first + count * length
        q, k, v = (
            part[0, :, first:stop].reshape(part.shape[1], count, length, -1).transpose(0, 1)
            for part in (query, key, value)
        )
        mask = _window_mask(length, sliding_window, causal, query.device)
        seen = scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and mask is None, scale=scaling, enable_gqa=groups
        )
        out[0, first:stop] = seen.transpose(1, 2).flatten(0, 1)
    return out


def _window_mask(
    length: int, sliding_window: int | None, causal: bool, device: torch.device
) -> Tensor | None:
    """Return which tokens see each other, or None where the window reaches them all."""
    if sliding_window is None or length <= sliding_window:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    near = distance.abs() < sliding_window
    return near & (distance >= 0) if causal else near


def _attend_with_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    *,
    causal: bool,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {}
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        # Older torch always divides by the root of the head size; make up for it beforehand.
        query = query * (scaling * query.shape[-1] ** 0.5)
    if causal or sliding_window is not None:
        # An older torch without windows raises here, at load, and the runs are taken instead.
        reach = -1 if sliding_window is None else sliding_window - 1
        options["window_size"] = (reach, 0 if causal else reach)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            times = q.shape[1] // k.shape[1]
            k, v = (part.repeat_interleave(times, dim=1) for part in (k, v))
    if "num_splits" in known:
        # One split: a pair's sums then have one order, whoever shares its pass.
        options["num_splits"] = 1
    bounds: Any = segments.bounds
    longest = segments.longest
    packed: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)
    seen: Tensor = packed.unsqueeze(0)
    return seen
