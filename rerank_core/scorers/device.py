"""Where a model runs and in which precision. It does not know checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(config: ScorerConfig) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` into a device that exists."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"device {config.device!r} is unknown; use auto, cpu or cuda"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ModelUnavailable(f"device {config.device!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelUnavailable(
            f"device {config.device!r} is not here: {torch.cuda.device_count()} CUDA devices are"
            " visible. Use device auto or cpu, or start on a GPU machine"
        )
    return device


def set_precision(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Change the precision of the weights alone.

    `model.to(dtype)` would also round rotary frequencies, which are buffers, and with them where
    the tokens of a long text stand.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


@contextlib.contextmanager
def in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Hold the weights in float32 for a while; afterwards each is exactly what it was."""
    before = [(weight, weight.dtype) for weight in model.parameters()]
    try:
        set_precision(model, torch.float32)
        yield
    finally:
        for weight, dtype in before:
            weight.data = weight.data.to(dtype)
