"""Bodies in int8 on CPUs: weights are rounded at load, activations token by token as they come.

Sums are whole numbers, everything between two products is float32, and numba compiles it: none of
it is torch's but embeddings and heads. Only what loads a model in int8 imports numba.
"""

from __future__ import annotations

from rerank_core.errors import ModelUnavailable

# Raised whenever a release rounds in another way.
_SCHEME = 1


def int8_scheme() -> list[int | str]:
    """Return what an int8 score depends on beside the weights: how is rounded, and by which CPU.

    Raises ModelUnavailable where numba is not installed.
    """
    try:
        from rerank_core.scorers.int8.instructions import SHAPE
    except ImportError as error:
        raise ModelUnavailable(
            "dtype int8 needs numba: pip install 'ray-rerank[int8]'; or use dtype float32"
        ) from error
    return [_SCHEME, SHAPE.name]
