"""Finds the pair that kills or hangs its process, by halving, and scores all others.

Before a range of pairs is scored, a note is written. When it is there already, a process has died
over it, and all notes of the unit are read: a range that died too often is cut in two, until one
pair is left. Notes of finished units go at the commit, all at once. Where nothing has died yet none
is written: a pair that kills costs one process more, and all others a write less. It does not know
Ray: whoever restarts the process calls `score` again.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from statistics import median
from typing import Any

import numpy as np

from pipelines.commits.store import Store
from rerank_core import ModelUnavailable, RerankError
from rerank_core.types import PairScores, QueryDocumentPair, Scorer

KILLED = "killed_worker"
# Where the notes of all units lie until the commit, and those of pairs that were set aside.
ATTEMPTS, _KILLED = "_job/attempts", "_job/killed"
# A whole unit and a single pair get a second chance: a node may die for another reason.
_CHANCES = 2
_EXIT_MODEL_FAILED = 87
# When a unit counts as hanging: as many units known, at least so long, so many times their median.
_KNOWN, _LEAST_S, _TIMES = 3, 60.0, 50.0


class TooManyKilled(RerankError):
    """So many pairs killed their process that the fault is not in the pairs."""


@dataclass(slots=True)
class Isolation:
    """Scores the pairs of one unit; its notes lie in the job's `store`, under the unit's name."""

    scorer: Scorer
    store: Store
    unit: str
    max_killed: int
    timeout_s: float
    careful: bool = True  # whether a process may have died over this unit
    deaths: int = 0  # how many attempts with a note had died when it was scored
    _count: int = 0
    _notes: set[str] = field(default_factory=set)

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score all pairs; those that kill the process get the reason KILLED."""
        self._count = len(pairs)
        first = self._note(0, 0, len(pairs)) if self.careful else None
        if first is None or self.store.mark(first):  # nobody has tried before, as is usual
            return self._watched(first, pairs, 0, len(pairs))
        self._notes = set(self.store.names(self._folder))
        self.deaths = sum(name.endswith(".death") for name in self._notes)
        return self._range(pairs, 0, len(pairs))

    def survived(self) -> None:
        """Take back the note of a unit that was scored and could not be written."""
        if self.careful:
            self.store.delete([self._note(0, 0, self._count)])

    @property
    def _folder(self) -> str:
        return f"{ATTEMPTS}/{self.unit}"

    def _note(self, deaths: int, low: int, high: int) -> str:
        return f"{self._folder}/{deaths}.{low}-{high}.death"

    def _range(self, pairs: Sequence[QueryDocumentPair], low: int, high: int) -> PairScores:
        if f"{low}-{high}.npz" in self._notes:
            return _load(self.store.read(f"{self._folder}/{low}-{high}.npz"))
        whole, single = high - low == len(pairs), high - low <= 1
        deaths = sum(name.endswith(f".{low}-{high}.death") for name in self._notes)
        if deaths < (_CHANCES if whole or single else 1):
            note = self._note(deaths, low, high)
            self.store.mark(note)
            return self._watched(note, pairs, low, high)
        if single:
            return self._set_aside(low)
        middle = (low + high) // 2
        return PairScores.concat(
            [self._range(pairs, low, middle), self._range(pairs, middle, high)]
        )

    def _watched(
        self, note: str | None, pairs: Sequence[QueryDocumentPair], low: int, high: int
    ) -> PairScores:
        """Score a range whose note, if any, is written; it stays if the process does not."""
        share = (high - low) / max(1, len(pairs))
        limit_s = min(self.timeout_s, max(self.timeout_s * share * 4, 30.0))
        # A C thread ends the process even when a native call holds the interpreter.
        faulthandler.dump_traceback_later(limit_s, exit=True)
        try:
            scores = self.scorer.score(pairs[low:high])
        except ModelUnavailable:
            # A failed device stays failed in this process, and the pairs may be the cause.
            os._exit(_EXIT_MODEL_FAILED)
        except BaseException:
            if note:
                self.store.delete([note])
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        if note and high - low < len(pairs):
            self.store.replace(f"{self._folder}/{low}-{high}.npz", _dump(scores))
            self.store.delete([note])
        return scores

    def _set_aside(self, low: int) -> PairScores:
        self.store.mark(f"{_KILLED}/{self.unit}-{low}")
        count = len(self.store.names(_KILLED))
        if count > self.max_killed:
            raise TooManyKilled(
                f"{count} pairs killed their process, more than max_killed_rows"
                f" {self.max_killed}: look at the model and the machine, not the data"
            )
        return PairScores(
            np.full(1, np.nan, np.float32), np.zeros(1, np.int32), np.zeros(1, np.bool_),
            {0: KILLED},
        )  # fmt: skip


def deadline_s(usual: Sequence[float], most_s: float) -> float:
    """Return after how many seconds a unit counts as hanging, given what others took.

    Fifty times their median and a minute at least; `most_s` at most, and while too few are known.
    """
    if len(usual) < _KNOWN:
        return most_s
    return min(most_s, max(_LEAST_S, _TIMES * median(usual)))


def forget_deaths(store: Store, max_killed: int, done: set[str]) -> None:
    """After a run that ended with too many killed rows, try those of unfinished units again."""
    names = store.names(_KILLED)
    if len(names) <= max_killed:
        return
    again = [name for name in names if name.partition("-")[0] not in done]
    store.delete(f"{_KILLED}/{name}" for name in again)
    for unit in {name.partition("-")[0] for name in again}:
        store.delete_folder(f"{ATTEMPTS}/{unit}")


def _dump(scores: PairScores) -> bytes:
    body = BytesIO()
    np.savez(
        body,
        raw=scores.raw,
        tokens=scores.tokens,
        truncated=scores.truncated,
        places=np.array(list(scores.errors), dtype=np.int64),
        reasons=np.array(list(scores.errors.values()), dtype=np.str_),
        split=np.array(list(scores.passages), dtype=np.int64),
        spans=np.array(list(scores.passages.values()), dtype=np.int64).reshape(-1, 2),
    )
    return body.getvalue()


def _load(body: Any) -> PairScores:
    with np.load(BytesIO(body)) as kept:
        errors = zip(kept["places"].tolist(), kept["reasons"].tolist(), strict=True)
        spans = zip(kept["split"].tolist(), map(tuple, kept["spans"].tolist()), strict=True)
        return PairScores(kept["raw"], kept["tokens"], kept["truncated"], dict(errors), dict(spans))
