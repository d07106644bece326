"""A small BM25 over sparse matrices, for hard negatives and for the figures of comparison."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

_LATIN = re.compile(r"[a-z0-9]+")
_CHINESE = re.compile(r"[\u3400-\u9fff]+")
_K1, _B = 1.2, 0.75


def terms(text: str) -> list[str]:
    """Lower-case words and digits; for Chinese each character and each pair of neighbours."""
    text = text.lower()
    out = _LATIN.findall(text)
    for run in _CHINESE.findall(text):
        out.extend(run)
        out.extend(run[i : i + 2] for i in range(len(run) - 1))
    return out


class BM25:
    """An index over `documents`; scores are larger for better matches."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._words = CountVectorizer(analyzer=terms, dtype=np.float32)
        counts = self._words.fit_transform(documents).tocoo()
        lengths = np.bincount(counts.row, counts.data, minlength=len(documents))
        norm = _K1 * (1 - _B + _B * lengths / lengths.mean())
        seen = np.bincount(counts.col, minlength=counts.shape[1])
        idf = np.log(1 + (len(documents) - seen + 0.5) / (seen + 0.5))
        weights = idf[counts.col] * counts.data * (_K1 + 1) / (counts.data + norm[counts.row])
        self._index = csr_matrix((weights, (counts.col, counts.row)), counts.shape[::-1])

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """One row of document scores for each query."""
        asked = self._words.transform(queries)
        return np.asarray((asked @ self._index).todense(), dtype=np.float32)


def top(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest scores of each row, best first, ties by column."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
