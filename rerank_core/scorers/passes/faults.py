"""Which errors of a pass are a matter of its size, and which are the end of its device.

It does not know what is done about them.
"""

from __future__ import annotations

import torch

from rerank_core.errors import ModelUnavailable

_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
_FATAL_SIGNS = ("CUDA error", "device-side assert", "CUDNN_STATUS", "CUBLAS_STATUS", "NCCL")


def raise_if_fatal(error: Exception) -> None:
    """Raise ModelUnavailable for an error after which the device gives only errors."""
    if isinstance(error, ModelUnavailable):
        raise error
    if is_out_of_memory(error):
        return
    if isinstance(error, torch.AcceleratorError) or any(s in str(error) for s in _FATAL_SIGNS):
        raise ModelUnavailable(
            f"the GPU failed for good ({type(error).__name__}); this process must be restarted"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may succeed."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
    )


def release_memory(error: Exception) -> None:
    """Give back what a failed pass still holds."""
    # The traceback holds the failed pass's tensors; without this the retry would not have room.
    error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reason_of(error: Exception, tokens: int) -> str:
    """Return why a pair has no score, without a word of its text."""
    if is_out_of_memory(error):
        return f"a pair of {tokens} tokens does not fit the device's memory; lower max_length"
    return f"the model failed on this pair ({type(error).__name__})"
