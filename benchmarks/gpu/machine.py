"""The device: its time, its memory, its best rates. It does not know models."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.session import Session


def describe(device: str) -> dict[str, Any]:
    """Return what a figure depends on: names and versions."""
    import sentence_transformers
    import transformers

    found: dict[str, Any] = {
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["memory_gb"] = round(properties.total_memory / 2**30, 1)
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["cuda"] = torch.version.cuda
    return found


def wait(device: str) -> None:
    """Return when the device has done all that was launched."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(device: str, call: Callable[[], object]) -> float:
    """Return how long a call takes on the wall clock, device work included."""
    wait(device)
    started_s = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started_s


def repeated(session: Session, call: Callable[[], object], at_least: int = 3) -> list[float]:
    """Return the seconds of each call, after one that is not counted."""
    call()
    taken: list[float] = []
    while len(taken) < at_least or (sum(taken) < session.sizes.rounds_s and len(taken) < 200):
        taken.append(seconds_of(session.device, call))
        if session.left_s < 0:
            break
    return taken


def percentiles_ms(taken: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile in milliseconds."""
    ordered = sorted(taken)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {"p50_ms": round(statistics.median(ordered) * 1000, 3), "p95_ms": round(high * 1000, 3)}


def peak_memory_mb(device: str, call: Callable[[], object]) -> dict[str, float]:
    """Return the device memory at a call's peak, in all and above what lay there before it."""
    if not device.startswith("cuda"):
        call()
        return {"memory_mb": 0.0, "above_model_mb": 0.0}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    peak = torch.cuda.max_memory_allocated(device)
    return {
        "memory_mb": round(peak / 2**20, 1),
        "above_model_mb": round((peak - before) / 2**20, 1),
    }


def matmul_flops(session: Session, dtype: torch.dtype) -> float:
    """Return the FLOP/s of large products of random numbers, sustained for ten at a time."""
    size = session.sizes.matmul
    left = torch.randn(size, size, device=session.device, dtype=dtype)
    right = torch.randn(size, size, device=session.device, dtype=dtype)

    def ten() -> None:
        for _ in range(10):
            torch.mm(left, right)

    return 10 * 2 * size**3 / statistics.median(repeated(session, ten))


def copy_bytes_s(session: Session) -> float:
    """Return the bytes per second of a copy on the device, read and written bytes counted."""
    size = session.sizes.matmul**2 * 16
    source = torch.randint(0, 100, (size,), device=session.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    taken = repeated(session, lambda: target.copy_(source))
    return 2 * size / statistics.median(taken)


def upload_bytes_s(session: Session) -> float:
    """Return the bytes per second from pinned memory to the device."""
    on_gpu = session.device.startswith("cuda")
    source = torch.zeros(session.sizes.matmul**2, dtype=torch.uint8, pin_memory=on_gpu)
    target = torch.empty_like(source, device=session.device)
    taken = repeated(session, lambda: target.copy_(source, non_blocking=True))
    return len(source) / statistics.median(taken)
