"""Which way to compute a packed pass can be trusted: the first whose scores are the padded ones.

It does not know models, nor how any way computes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product

from torch import Tensor, nn

from rerank_core.scorers.attention import kernel_fits
from rerank_core.scorers.body import Forward, NotPackable, PaddedForward
from rerank_core.scorers.device import DTYPES
from rerank_core.scorers.encoder import TokenizedPair

logger = logging.getLogger(__name__)

# How far packed scores may be from padded ones, for logits up to 1; larger ones in proportion.
_TOLERANCE = {"float32": 1e-4, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1, "int8": 1e-1,
              "float8": 2e-1}  # fmt: skip


def take_best_way(
    forward: Forward, probes: list[TokenizedPair], expected: Tensor, dtype: str, *, shares: bool
) -> None:
    """Set `kernel` and `shares` to the fastest way whose scores are as expected, said if not all.

    `shares`: what pairs begin with may be computed once. NotPackable says why there is no such way.
    """
    kernels = (True, False) if kernel_fits(forward.device, DTYPES[dtype]) else (False,)
    wanted, *others = product(kernels, (True, False) if shares else (False,))
    reasons = []
    for forward.kernel, forward.shares in (wanted, *others):
        reason = disagreement(forward, probes, expected, dtype)
        if reason is None:
            break
        reasons.append(reason)
    else:
        raise NotPackable(reasons[-1])
    if reasons:
        without = "sharing prompts" if forward.kernel == wanted[0] else "torch's kernel"
        logger.warning("packed pairs are scored without %s: %s", without, reasons[0])


def take_first_head(
    padded: PaddedForward, heads: Sequence[nn.Module], probe: list[TokenizedPair], own: Tensor,
    dtype: str,
) -> str | None:  # fmt: skip
    """Set the first head whose score of a pair is the model's own; return why there is none."""
    reason: str | None = None
    for head in heads:
        padded.head = head.float()
        reason = disagreement(padded, probe, own, dtype)
        if reason is None:
            break
    return reason


def disagreement(
    forward: Forward, probes: list[TokenizedPair], expected: Tensor, dtype: str
) -> str | None:
    """Return why a way to compute is not to be trusted, None where its scores are as expected."""
    try:
        found = forward(probes).float().cpu()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        return f"it cannot be computed so ({type(error).__name__}: {error})"
    wanted = expected.float().cpu()
    finite = wanted.isfinite()
    if not bool((found.isfinite() == finite).all()):
        return "scores and those they are held against are not finite for different pairs"
    # What overflows is scored again in float32: the others are held against each other.
    found, wanted = found[finite], wanted[finite]
    if not len(wanted):
        return None
    difference = float((found - wanted).abs().max())
    if difference <= _TOLERANCE[dtype] * max(1.0, float(wanted.abs().max())):
        return None
    return f"scores differ by {difference:.2g}"
