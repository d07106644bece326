"""The part that every share is a share of: products and copies, measured on this device."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.machine import copy_bytes_s, matmul_flops, upload_bytes_s
from benchmarks.gpu.session import Session


def ceilings(session: Session) -> None:
    """Measure products in each precision, copies on the device, copies to it."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = f"{str(dtype).removeprefix('torch.')}_tflops"
        session.attempt("peak", name, partial(_tflops, session, dtype))
    session.attempt("peak", "copy_gb_s", lambda: round(copy_bytes_s(session) / 1e9, 1))
    session.attempt("peak", "upload_gb_s", lambda: round(upload_bytes_s(session) / 1e9, 2))


def _tflops(session: Session, dtype: torch.dtype) -> float:
    return round(matmul_flops(session, dtype) / 1e12, 3)
