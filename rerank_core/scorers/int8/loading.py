"""Whether int8 is possible here, and a body's layers rounded. It does not know checkpoints."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from typing import Any

import torch
from torch import nn

from rerank_core.errors import ModelUnavailable
from rerank_core.scorers.device import gelu_after
from rerank_core.scorers.int8 import int8_scheme
from rerank_core.scorers.passes.bert_layers import PackedLayers

logger = logging.getLogger(__name__)


def refuse_int8(device: torch.device) -> None:
    """Raise ModelUnavailable with the fix where int8 is not possible; warn where it is slow."""
    if device.type != "cpu":
        raise ModelUnavailable(
            f"dtype int8 is for CPUs, and {device} is a GPU; use dtype bfloat16, or device cpu"
        )
    int8_scheme()
    from rerank_core.scorers.int8.instructions import SHAPE

    if not SHAPE.vnni:
        logger.warning("this CPU (%s) has no instructions for products of bytes: expect int8 to be"
                       " some 1.5 times as fast as float32, not 2.6", SHAPE.name)  # fmt: skip


def quantize(body: Any) -> None:
    """Replace a body's word embeddings and linear layers by int8; the float32 ones are let go."""
    _replace(body)
    # glibc would keep what it was given back: 35 of the embedded model's 80 MB of float32.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _replace(body: Any) -> None:
    from rerank_core.scorers.int8.bert import QuantizedLayers
    from rerank_core.scorers.int8.compiled import drop_stale
    from rerank_core.scorers.int8.weights import QuantizedEmbedding, QuantizedLinear

    drop_stale()
    table = body.get_input_embeddings()
    if type(table) is nn.Embedding:
        body.set_input_embeddings(QuantizedEmbedding(table))
    encoder = getattr(body, "encoder", None)
    if isinstance(encoder, PackedLayers) and all(
        gelu_after(layer.intermediate) == "dense" for layer in encoder.layers
    ):
        body.encoder = QuantizedLayers(encoder)
        return
    for module in list(body.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, QuantizedLinear(child))
