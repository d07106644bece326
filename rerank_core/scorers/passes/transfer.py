"""Between host and device: one copy in for each pass, and logits that come out on their own.

It does not know what is copied, nor what computes in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rerank_core.types import Float32s


def stage(arrays: Sequence[Any], device: torch.device) -> Tensor:
    """Return arrays of integers as one int32 tensor on the host, one behind another.

    It is pinned where that helps, and belongs to this call alone; torch gives pinned memory to
    nobody else before the device has read it.
    """
    staged = torch.empty(sum(map(len, arrays)), dtype=torch.int32, pin_memory=device.type == "cuda")
    np.concatenate(arrays, out=staged.numpy(), casting="same_kind")
    return staged


def upload(arrays: Sequence[Any], device: torch.device) -> list[Tensor]:
    """Return one int32 tensor on the device for each array, all from one copy not waited for."""
    whole = stage(arrays, device).to(device, non_blocking=True)
    return list(torch.split(whole, list(map(len, arrays))))


class Download:
    """Logits on their way to the host: the copy is enqueued here, behind the pass that makes them.

    Enqueued only when they are asked for, it would stand behind the next pass, and the device would
    idle while the one after that is packed.
    """

    def __init__(self, logits: Tensor) -> None:
        self._arrived: Any = None
        if logits.device.type != "cuda":
            self._host = logits.float()
            return
        self._host = torch.empty(logits.shape, dtype=torch.float32, pin_memory=True)
        self._host.copy_(logits, non_blocking=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(logits.device))

    def wait(self) -> Float32s:
        """Return the logits, having waited for them and for nothing behind them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        logits: Float32s = self._host.cpu().numpy()
        return logits
