"""The part on precisions: what each costs in time on a large shape, and in order on real weights.

float8 is judged here before our scorer may offer it: every linear layer of the padded model is put
on float8 tensor cores with a scale a row, against the same padded model in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu import scorers, shapes
from benchmarks.gpu.machine import seconds_of
from benchmarks.gpu.session import Session
from benchmarks.pair_mixes import MIXES, Pair
from rerank_core import ScorerConfig

_LARGEST = 448.0  # of float8_e4m3fn


def precision(session: Session) -> None:
    """Measure every precision of ours, float32 through tf32, and float8 in the padded model."""
    large, real = shapes.bge_reranker_v2_m3(session), shapes.embedded_folder()
    pools = [_pool(session, large), _pool(session, large if session.dry else real)]
    folder, pool = pools[1]
    exact = scorers.ours(session, folder, dtype="float32").score(scorers.pairs_of(pool)).raw
    session.record("precision", "spread of the float32 logits", round(float(exact.std()), 3))
    for dtype in get_args(ScorerConfig.model_fields["dtype"].annotation):
        measure = partial(_ours, session, dtype, pools, exact)
        with scorers.freed():
            session.attempt("precision", f"ours, {dtype}", measure)
    with scorers.freed():
        session.attempt("precision", "ours, float32 by tf32", partial(_tf32, session, pools, exact))
    for name, change in (("bfloat16", None), ("float8", _to_float8), ("float8, fused", _fused)):
        measure = partial(_padded, session, change, pools, exact)
        with scorers.freed():
            session.attempt("precision", f"padded, {name}", measure)


# A large shape's pool, to time, and real weights' pool, to rank.
Pools = list[tuple[Path, list[Pair]]]


def _pool(session: Session, folder: Path) -> tuple[Path, list[Pair]]:
    texts = shapes.texts(folder, 100 if session.dry else 450)
    tokens = max(300, session.sizes.pool_tokens // 5)
    return folder, texts.pool(MIXES["chunks"], tokens, seed=5)


def _ours(session: Session, dtype: str, pools: Pools, exact: Any) -> dict[str, Any]:
    def scored(folder: Path, texts: list[Pair]) -> tuple[Any, float]:
        with scorers.freed():
            scorer = scorers.ours(session, folder, dtype=dtype)
            return _timed(session, lambda: scorer.score(scorers.pairs_of(texts)).raw)

    large, real = pools
    return {"seconds": scored(*large)[1], **distance(exact, scored(*real)[0])}


def _timed(session: Session, score: Callable[[], Any]) -> tuple[Any, float]:
    """Return the scores, and the seconds of the better of two more times."""
    scores = np.asarray(score(), dtype=np.float32)
    return scores, round(min(seconds_of(session.device, score) for _ in range(2)), 4)


def _tf32(session: Session, pools: Pools, exact: Any) -> dict[str, Any]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return _ours(session, "float32", pools, exact)
    finally:
        torch.set_float32_matmul_precision(before)


def _padded(
    session: Session, change: Callable[[nn.Module], None] | None, pools: Pools, exact: Any
) -> dict[str, Any]:
    def scored(folder: Path, texts: list[Pair]) -> tuple[Any, float]:
        with scorers.freed():
            encoder = scorers.predictor(session, folder, "bfloat16")
            if change is not None:
                change(encoder.transformers_model)
            score = scorers.predict(encoder, 2 if session.dry else 256)
            return _timed(session, lambda: score(texts))

    large, real = pools
    return {"seconds": scored(*large)[1], **distance(exact, scored(*real)[0])}


def distance(exact: Any, scores: Any) -> dict[str, float]:
    """Return how far scores are from the exact ones: rank correlation, largest difference."""
    if not np.isfinite(scores).all():
        return {"not_finite": int((~np.isfinite(scores)).sum())}
    return {
        "rank_correlation": round(float(np.corrcoef(_ranks(exact), _ranks(scores))[0, 1]), 6),
        "largest_difference": round(float(np.abs(exact - scores).max()), 5),
    }


def _ranks(scores: Sequence[float] | Any) -> Any:
    return np.argsort(np.argsort(scores, kind="stable"), kind="stable")


class Float8Linear(nn.Module):
    """A linear layer on float8 tensor cores: one scale a row of the input and of the weight."""

    def __init__(self, linear: nn.Linear, quantise: Callable[[Tensor], tuple[Tensor, Tensor]]):
        super().__init__()
        self.weight, self.scale = quantise_rows(linear.weight.detach())
        self.bias = linear.bias
        self._quantise = quantise

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows of any leading shape."""
        eight, scale = self._quantise(rows.reshape(-1, rows.shape[-1]))
        if rows.is_cuda:
            out = torch._scaled_mm(
                eight,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale.t(),
                bias=self.bias,
                out_dtype=torch.bfloat16,
            )
        else:
            # The same numbers where no float8 kernel is.
            left, right = eight.float() * scale, self.weight.float() * self.scale
            out = (left @ right.t() + self.bias.float()).to(rows.dtype)
        return out.view(*rows.shape[:-1], -1)


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in float8 and the factor of each, (rows, 1) in float32."""
    wide = rows.float()
    scale = wide.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
    return (wide / scale).to(torch.float8_e4m3fn), scale


def _to_float8(model: nn.Module) -> None:
    _replace(model, quantise_rows)


def _fused(model: nn.Module) -> None:
    """As float8, with the input's scale and cast compiled into one kernel."""
    on_gpu = next(model.parameters()).is_cuda
    _replace(model, torch.compile(quantise_rows, dynamic=True) if on_gpu else quantise_rows)


def _replace(model: nn.Module, quantise: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            # The head's one row stays; tensor cores want multiples of 16.
            if type(child) is nn.Linear and child.out_features % 16 == 0:
                setattr(module, name, Float8Linear(child, quantise))
