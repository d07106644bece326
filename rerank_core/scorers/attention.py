"""Attention over packed segments, plugged into transformers' attention interface.

Many pairs lie end to end in one row; each token sees only its own pair, all of it or, in a causal
model, what stands before, which several pairs may share. It does not know models, heads or batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION_NAME = "rerank_segments"
# FlashAttention, which torch's kernel for packed rows is, starts with Ampere.
_KERNEL_CAPABILITY = (8, 0)
# Where an older torch lacks one that matters, num_splits apart, what is done without is tested.
_KERNEL_OPTIONS = frozenset(inspect.signature(varlen_attn).parameters)


class Keys(NamedTuple):
    """What segments attend to where that is more than themselves: their own keys and others'.

    `places` in the row, of one segment behind the other's, `lengths` of them each; `bounds` are
    the running sums of these (int32, from 0).
    """

    places: Tensor
    bounds: Tensor
    lengths: Sequence[int]


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each pair lies in the packed row.

    `bounds`, a running sum of lengths (int32, from 0), is on the device. `runs` groups neighbours
    of equal length: (first token, segments in the group, length, first key, keys each); without
    any the kernel is to run. A segment's queries are its last keys.
    """

    longest: int
    runs: tuple[tuple[int, int, int, int, int], ...]
    bounds: Tensor
    keys: Keys | None = None
    most_keys: int = 0

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        bounds: Tensor,
        *,
        kernel: bool,
        keys: Keys | None = None,
        longest: int = 0,
    ) -> Segments:
        """Describe segments of these lengths, in row order, with `bounds` on their device."""
        known = lengths if keys is None else keys.lengths
        longest = max(longest, *lengths)
        if kernel:
            return cls(longest, (), bounds, keys, max(longest, *known))
        runs: list[tuple[int, int, int, int, int]] = []
        start = key = 0
        for length, most in zip(lengths, known, strict=True):
            if runs and (runs[-1][2], runs[-1][4]) == (length, most):
                first, count, _, first_key, _ = runs[-1]
                runs[-1] = (first, count + 1, length, first_key, most)
            else:
                runs.append((start, 1, length, key, most))
            start, key = start + length, key + most
        return cls(longest, tuple(runs), bounds, keys)


def plug_attention(model: Any) -> None:
    """Let a transformers model attend in packed segments."""
    AttentionInterface.register(ATTENTION_NAME, segment_attention)
    model.set_attn_implementation(ATTENTION_NAME)


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
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    how = How(bool(getattr(module, "is_causal", False)), scaling, sliding_window)
    return attend(q, k, v, segments, how).unsqueeze(0), None


class How(NamedTuple):
    """What each token sees; with `one` there is a query for each segment: of its first token where
    no window hides anything, or of its last.
    """

    causal: bool = False
    scaling: float | None = None
    sliding_window: int | None = None
    one: bool = False


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments, how: How) -> Tensor:
    """Attend inside each segment, or to its `keys`; all shapes are (tokens, heads, size)."""
    if segments.keys is not None:
        key, value = (part.index_select(0, segments.keys.places) for part in (key, value))
    attending = _attend_in_runs if segments.runs else _attend_with_kernel
    return attending(query, key, value, segments, how)


def kernel_fits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch's kernel for packed rows exists for this device and precision."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= _KERNEL_CAPABILITY


def _attend_in_runs(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, how: How
) -> Tensor:
    """Dense attention per run of equal lengths: nothing is padded and no pair sees another."""
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    options: Any = {"scale": how.scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    pair = 0
    for first, count, length, first_key, known in segments.runs:
        whole = slice(first, first + count * length)
        keys = slice(first_key, first_key + count * known)
        asked = slice(pair, pair + count) if how.one else whole
        q, k, v = (
            part[place].reshape(count, -1, *part.shape[1:]).transpose(1, 2)
            for part, place in ((query, asked), (key, keys), (value, keys))
        )
        mask = _mask(1 if how.one else length, known, how, query.device)
        plain = how.causal and mask is None
        seen = scaled_dot_product_attention(q, k, v, mask, is_causal=plain, **options)
        out[asked] = seen.transpose(1, 2).flatten(0, 1)
        pair += count
    return out


def _mask(length: int, known: int, how: How, device: torch.device) -> Tensor | None:
    """Return which keys each query sees, or None where none is hidden but by plain causality."""
    window = how.sliding_window
    if (window is None or known <= window) and (length == known or not how.causal):
        return None
    keys = torch.arange(known, device=device)
    distance = keys[known - length :, None] - keys[None, :]
    near = distance.abs() < (known if window is None else window)
    return near & (distance >= 0) if how.causal else near


def _attend_with_kernel(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, how: How
) -> Tensor:
    # One split: a pair's sums then have one order, whoever shares its pass.
    wanted: dict[str, Any] = {"scale": how.scaling, "num_splits": 1}
    if how.causal or how.sliding_window is not None:
        reach = -1 if how.sliding_window is None else how.sliding_window - 1
        wanted["window_size"] = (reach, 0 if how.causal else reach)
    grouped = query.shape[1] // key.shape[1]
    if grouped > 1 and "enable_gqa" in _KERNEL_OPTIONS:
        wanted["enable_gqa"] = True
    elif grouped > 1:
        # torch 2.11: the same sums over keys that are written out.
        key, value = (part.repeat_interleave(grouped, 1) for part in (key, value))
    options = {name: value for name, value in wanted.items() if name in _KERNEL_OPTIONS}
    asked, most = segments.bounds, segments.longest
    keys = asked if segments.keys is None else segments.keys.bounds
    if how.one:
        asked, most = torch.arange(len(asked), dtype=torch.int32, device=asked.device), 1
    kernel: Any = varlen_attn
    seen: Tensor = kernel(query, key, value, asked, keys, most, segments.most_keys, **options)
    return seen
