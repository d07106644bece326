"""Pairs of real text with chosen token lengths: the standard library's own documentation, cut.

It does not know models; a tokenizer is handed in so that lengths are exact.
"""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MODULES = (
    *("argparse", "asyncio", "builtins", "collections", "csv", "datetime", "decimal", "email"),
    *("functools", "http.client", "inspect", "io", "json", "logging", "os", "pathlib", "random"),
    *("re", "shutil", "socket", "statistics", "string", "subprocess", "tarfile", "threading"),
)
QUERIES = (
    "how to read a file line by line",
    "what happens when the pipe is closed before all data was read",
    "parse dates with a time zone",
    "which function returns the exit status of a child process",
)
Offsets = Callable[[str], Sequence[tuple[int, int]]]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Mix:
    """Document lengths in tokens: log-normal around `median`, never above `cap`."""

    title: str
    median: int
    spread: float
    cap: int


MIXES = {
    "short": Mix("short passages", 60, 0.5, 256),
    "chunks": Mix("chunks, about 230 tokens", 210, 0.45, 512),
    "mixed": Mix("mixed, to 2048 tokens or the model's limit", 350, 0.9, 2048),
}


class Texts:
    """Cuts documents of exact token counts out of one long text."""

    def __init__(self, offsets: Offsets, longest: int) -> None:
        self._text = "\n".join(documentation(MODULES, lambda text: " ".join(text.split())))
        self._offsets = offsets(self._text)
        self._longest = longest
        if len(self._offsets) <= longest:
            raise ValueError("the documentation is shorter than one document")

    def document(self, rng: random.Random, tokens: int) -> str:
        """Return a text of that many tokens, or of the model's limit, from a random place."""
        count = max(1, min(tokens, self._longest))
        first = rng.randrange(len(self._offsets) - count)
        return self._text[self._offsets[first][0] : self._offsets[first + count - 1][1]]

    def pool(self, mix: Mix, tokens: int, seed: int) -> list[Pair]:
        """Return pairs of a mix until their documents have `tokens` tokens together."""
        rng = random.Random(seed)
        pairs: list[Pair] = []
        while tokens > 0:
            length = _length(mix, rng)
            pairs.append((QUERIES[len(pairs) // 50 % len(QUERIES)], self.document(rng, length)))
            tokens -= min(length, self._longest)
        return pairs

    def request(self, documents: int, mix: Mix, seed: int) -> list[Pair]:
        """Return one request: one query, so many documents of a mix."""
        rng = random.Random(seed)
        query = QUERIES[seed % len(QUERIES)]
        return [(query, self.document(rng, _length(mix, rng))) for _ in range(documents)]


def _length(mix: Mix, rng: random.Random) -> int:
    return max(4, min(mix.cap, round(mix.median * rng.lognormvariate(0, mix.spread))))


def documentation(modules: Sequence[str], shape: Callable[[str], str]) -> list[str]:
    """Return the documentation of modules and their classes, each text once, shaped."""
    found: dict[str, None] = {}
    for name in modules:
        module = importlib.import_module(name)
        for owner in [module, *[v for v in vars(module).values() if inspect.isclass(v)]]:
            for value in vars(owner).values():
                text = inspect.getdoc(value) if callable(value) else None
                if text and len(text) > 80:
                    found.setdefault(shape(text))
    return list(found)
