"""How numba compiles what a quantised body computes, and what every such function needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

# Rows between two products that stay in a core's cache.
BLOCK = 48
# Numbers that a sum over a row takes at once, whatever the CPU's registers hold.
LANES = 16


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, without the GIL; kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)


def drop_stale() -> None:
    """Delete compiled code that is older than a module here: numba looks at one file alone."""
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in folder.glob("*.py"))
    for kept in (folder / "__pycache__").glob("*.nbi"):
        with contextlib.suppress(OSError):
            if kept.stat().st_mtime < newest:
                kept.unlink()


@compiled
def start_of(array):
    """Return an array's address, signed: numba adds signed and unsigned numbers as floats."""
    return np.intp(array.ctypes.data)
