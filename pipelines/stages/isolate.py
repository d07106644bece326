"""Finds the pair that kills or hangs its process, by halving, and scores all others.

Before a range of pairs is scored, a note is written; when the process dies, the note stays. The
next process reads the notes: a range that died too often is cut in two, until one pair is left.
It does not know Ray: whoever restarts the process calls `score` again.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np

from pipelines.commits import store
from rerank_core import ModelUnavailable, RerankError
from rerank_core.types import PairScores, QueryDocumentPair, Scorer

KILLED = "killed_worker"
# A whole unit and a single pair get a second chance: a node may die for another reason.
_CHANCES = 2
_EXIT_MODEL_FAILED = 87
# When a unit counts as hanging: as many units known, at least so long, so many times their median.
_KNOWN, _LEAST_S, _TIMES = 3, 60.0, 50.0


class TooManyKilled(RerankError):
    """So many pairs killed their process that the fault is not in the pairs."""


@dataclass(slots=True)
class Isolation:
    """Scores the pairs of one unit; `notes` is the unit's own folder, `killed` the job's."""

    scorer: Scorer
    notes: Path
    killed: Path
    max_killed: int
    timeout_s: float

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score all pairs; those that kill the process get the reason KILLED."""
        return self._range(pairs, 0, len(pairs))

    def deaths(self) -> int:
        """Return how many attempts at this unit have died so far."""
        return len(store.names(self.notes, ".death"))

    def clear(self) -> None:
        """Forget the notes of a unit that is done."""
        shutil.rmtree(self.notes, ignore_errors=True)

    def _range(self, pairs: Sequence[QueryDocumentPair], low: int, high: int) -> PairScores:
        kept = self.notes / f"{low}-{high}.npz"
        if kept.is_file():
            return _load(kept)
        whole, single = high - low == len(pairs), high - low <= 1
        deaths = len(store.names(self.notes, f".{low}-{high}.death"))
        if deaths < (_CHANCES if whole or single else 1):
            return self._attempt(pairs, low, high, deaths)
        if single:
            return self._set_aside(low)
        middle = (low + high) // 2
        return PairScores.concat(
            [self._range(pairs, low, middle), self._range(pairs, middle, high)]
        )

    def _attempt(
        self, pairs: Sequence[QueryDocumentPair], low: int, high: int, deaths: int
    ) -> PairScores:
        note = self.notes / f"{deaths}.{low}-{high}.death"
        store.replace(note, b"")
        share = (high - low) / max(1, len(pairs))
        deadline_s = min(self.timeout_s, max(self.timeout_s * share * 4, 30.0))
        # A C thread ends the process even when a native call holds the interpreter.
        faulthandler.dump_traceback_later(deadline_s, exit=True)
        try:
            scores = self.scorer.score(pairs[low:high])
        except ModelUnavailable:
            # A failed device stays failed in this process, and the pairs may be the cause.
            os._exit(_EXIT_MODEL_FAILED)
        except BaseException:
            note.unlink(missing_ok=True)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        if high - low < len(pairs):
            store.replace(self.notes / f"{low}-{high}.npz", _dump(scores))
        note.unlink(missing_ok=True)
        return scores

    def _set_aside(self, low: int) -> PairScores:
        store.replace(self.killed / f"{self.notes.name}-{low}", b"")
        count = len(store.names(self.killed))
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


def forget_deaths(job: Path, max_killed: int, done: set[str]) -> None:
    """After a run that ended with too many killed rows, try those of unfinished units again.

    `job` is the folder that holds `killed` and `attempts`.
    """
    killed = job / "killed"
    names = store.names(killed)
    if len(names) <= max_killed:
        return
    for name in names:
        unit = name.partition("-")[0]
        if unit not in done:
            (killed / name).unlink(missing_ok=True)
            shutil.rmtree(job / "attempts" / unit, ignore_errors=True)


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


def _load(path: Path) -> PairScores:
    with np.load(path) as kept:
        errors = zip(kept["places"].tolist(), kept["reasons"].tolist(), strict=True)
        spans = zip(kept["split"].tolist(), map(tuple, kept["spans"].tolist()), strict=True)
        return PairScores(kept["raw"], kept["tokens"], kept["truncated"], dict(errors), dict(spans))
