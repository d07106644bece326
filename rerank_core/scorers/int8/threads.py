"""Shares rows out among torch's number of threads; what is called lets go of the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

# Fewer are not worth another thread's start.
_LEAST_ROWS = 24


@cache
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    # Of each process its own: a forked one has none of the threads.
    return ThreadPoolExecutor(count, thread_name_prefix="int8")


def alone(rows: int, work: Callable[[int, int], None], least: int = 0) -> None:
    """Call `work(0, rows)`: what `share_out` does where its caller is one of many already."""
    work(0, rows)


def share_out(rows: int, work: Callable[[int, int], None], least: int = _LEAST_ROWS) -> None:
    """Call `work(low, high)` for parts of range(rows), side by side."""
    parts = max(1, min(torch.get_num_threads(), rows // least))
    if parts == 1:
        work(0, rows)
        return
    bounds = [rows * part // parts for part in range(parts + 1)]
    pool = _workers(torch.get_num_threads() - 1, os.getpid())
    others = [pool.submit(work, *part) for part in pairwise(bounds[1:])]
    try:
        work(bounds[0], bounds[1])
    finally:
        for other in others:
            other.exception()
    for other in others:
        other.result()
