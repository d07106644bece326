"""Pairs that kill or hang their process, scored by processes that really die."""

from __future__ import annotations

import math
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.commits.store import open_store
from pipelines.stages.isolate import ATTEMPTS, KILLED, Isolation, TooManyKilled, deadline_s
from rerank_core.types import PairScores, QueryDocumentPair

pytestmark = pytest.mark.seconds


UNIT = "000007"


class Deadly:
    """Scores by length; `exit` ends the process, `hang` never returns, `nan` fails alone."""

    def score(self, pairs):
        raw = np.array([len(pair.document) for pair in pairs], dtype=np.float32)
        errors = {}
        for place, pair in enumerate(pairs):
            if "exit" in pair.document:
                os._exit(1)
            if "hang" in pair.document:
                time.sleep(60)
            if "nan" in pair.document:
                raw[place], errors[place] = np.nan, "non_finite_score"
        ones = np.ones(len(pairs), dtype=np.int32)
        return PairScores(raw, ones, ones.astype(bool), errors)


def score_through_deaths(folder: Path, documents, timeout_s=30.0, max_killed=10, careful=True):
    """Score in child processes until one lives; return the scores and the number of deaths.

    The first may be careless, as in a job where none has died.
    """
    pairs = [QueryDocumentPair("q", document) for document in documents]
    result, deaths = folder / "result", 0
    store = open_store(folder)
    while True:
        isolation = Isolation(
            Deadly(), store, UNIT, max_killed, timeout_s, careful or deaths > 0  # type: ignore[arg-type]
        )  # fmt: skip
        child = os.fork()
        if not child:
            try:
                found: object = isolation.score(pairs)
            except TooManyKilled as error:
                found = error
            result.write_bytes(pickle.dumps(found))
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return pickle.loads(result.read_bytes()), deaths
        deaths += 1


@pytest.mark.parametrize("poisoned", [[0], [31], [63], [0, 63], [20, 21], []])
def test_exactly_the_deadly_pairs_are_set_aside(tmp_path, poisoned):
    documents = [f"{'exit' if n in poisoned else 'fine'} {n}" for n in range(64)]
    documents[40] = "nan"
    scores, deaths = score_through_deaths(tmp_path, documents)
    assert scores.errors == {40: "non_finite_score"} | dict.fromkeys(poisoned, KILLED)
    good = [n for n in range(64) if n not in scores.errors]
    assert scores.raw[good].tolist() == [len(documents[n]) for n in good]
    assert np.isnan(scores.raw[list(scores.errors)]).all()
    assert deaths <= (2 + 2 * math.log2(64)) * max(1, len(poisoned))


@pytest.mark.parametrize("poisoned", [[5], []])
def test_a_process_before_which_none_has_died_leaves_no_note(tmp_path, poisoned):
    documents = [f"{'exit' if n in poisoned else 'fine'} {n}" for n in range(8)]
    scores, deaths = score_through_deaths(tmp_path, documents, careful=False)
    assert scores.errors == dict.fromkeys(poisoned, KILLED)
    assert bool(deaths) == bool(open_store(tmp_path).names(f"{ATTEMPTS}/{UNIT}")) == bool(poisoned)


def test_a_hanging_pair_is_set_aside(tmp_path):
    scores, deaths = score_through_deaths(tmp_path, ["a", "bb", "hang", "cccc"], timeout_s=0.3)
    assert scores.errors == {2: KILLED}
    assert scores.raw[[0, 1, 3]].tolist() == [1, 2, 4]
    assert deaths <= 6


def test_one_innocent_death_sets_nothing_aside(tmp_path):
    open_store(tmp_path).mark(f"{ATTEMPTS}/{UNIT}/0.0-3.death")
    scores, deaths = score_through_deaths(tmp_path, ["a", "b", "c"])
    assert (scores.errors, deaths) == ({}, 0)


def test_too_many_deadly_pairs_end_the_job(tmp_path):
    error, _ = score_through_deaths(tmp_path, ["exit"] * 4, max_killed=1)
    assert isinstance(error, TooManyKilled)
    assert "max_killed_rows 1" in str(error)


def test_a_unit_that_was_scored_and_not_written_has_not_died(tmp_path):
    store = open_store(tmp_path)
    isolation = Isolation(Deadly(), store, UNIT, 1, 30)  # type: ignore[arg-type]
    isolation.score([QueryDocumentPair("q", "d")])
    assert store.names(f"{ATTEMPTS}/{UNIT}") == ["0.0-1.death"]
    isolation.survived()
    assert store.names(f"{ATTEMPTS}/{UNIT}") == []


def test_an_error_of_the_scorer_is_not_a_death(tmp_path):
    class Broken:
        def score(self, pairs):
            raise ValueError("bug")

    store = open_store(tmp_path)
    isolation = Isolation(Broken(), store, UNIT, 1, 30)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bug"):
        isolation.score([QueryDocumentPair("q", "d")])
    assert store.names(f"{ATTEMPTS}/{UNIT}") == []


@pytest.mark.parametrize(
    ("usual", "expected"),
    [([], 3600), ([1, 1], 3600), ([0.8] * 3, 60), ([10, 2, 4, 3, 2], 150), ([100] * 5, 3600)],
)
def test_a_unit_hangs_when_it_takes_fifty_times_as_long_as_others(usual, expected):
    assert deadline_s(usual, 3600) == expected
