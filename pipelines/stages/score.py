"""Scores units on actors. An actor writes its units' results itself; lines of counts go back.

It does not know where units come from, nor who restarts it when it dies.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from pipelines.commits.checks import check_conservation
from pipelines.commits.quarantine import count_reasons
from pipelines.engine import JobContext, LoadScorer
from pipelines.growing.kept import Scored, kept_kind, score_unknown
from pipelines.inputs.pairs import extract
from pipelines.inputs.units import Unit
from pipelines.ranks.unit_file import write_unit
from pipelines.ranks.within_unit import rank_unit
from pipelines.stages import machine
from pipelines.stages.account import failed_pairs, histograms, unit_counts
from pipelines.stages.failures import COPY, failure_line, loading, named, note_death
from pipelines.stages.isolate import Isolation, deadline_s
from pipelines.stages.scoring import SecondHalf, added_values, score_distinct, warm
from rerank_core import PairScores, QueryDocumentPair, RerankError
from rerank_core.types import preparing

# Units that an actor has in hand: while one is scored, others are unpacked, ranked and written.
CALLS = 2


class ScoreUnits:
    """The class each actor of the pool runs: one model, one unit per call, `CALLS` at a time.

    Only scoring takes turns, in a thread of its own: OpenMP keeps workers for every thread that
    ever computed, and they get in each other's way. `restarts` says the name of this actor and how
    many processes were it before and have died.
    """

    def __init__(
        self,
        context: JobContext,
        load: LoadScorer,
        restarts: Callable[[], tuple[str, int]] = lambda: ("", 0),
    ) -> None:
        self._context = context
        name, deaths = restarts()
        # Else nothing has died over a unit yet, and none needs a note that it is tried.
        self._careful = context.folder.epoch > 1 or deaths > 0
        self._failure: RerankError | None = None
        self._usual_s: list[float] = []
        self._scoring = ThreadPoolExecutor(1, "score")
        try:
            machine.refuse_another_folder(context.folder)
            if deaths:
                note_death(context.folder, COPY + name, deaths)
            self._usual_s = machine.seconds_of_others(context.folder, context.first_new)
            # In a thread that ends, for the same reason.
            with (
                loading(context.folder, name, deaths),
                ThreadPoolExecutor(1, "start") as start,
            ):
                self._scorer = start.submit(lambda: warm(load(context.config.scorer))).result()
            self._halves = preparing(self._scorer)
            self._preparing = threading.Lock()
            self._second = SecondHalf(self._halves) if self._halves else self._scorer
            machine.refuse_another_model(context.folder, self._scorer.info.fingerprint)
        except Exception as error:
            # Raised here, it would be an actor that dies again and again.
            self._failure = named(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score each unit row and publish its record; return a line of JSON for each.

        An error is a line, too: the kind of one that is raised does not reach the driver.
        """
        try:
            return pa.table({"line": self._lines(batch)})
        except Exception as error:
            return pa.table({"line": [failure_line(named(error))]})

    def _lines(self, batch: pa.Table) -> list[str]:
        if self._failure:
            raise self._failure
        lines = []
        for row in range(batch.num_rows):
            failure = batch["failure"][row].as_py()
            if failure:
                lines.append(failure)
                continue
            unit = Unit(**json.loads(batch["unit"][row].as_py()))
            path, bad = batch["file"][row].as_py(), batch["bad"][row].as_py()
            if bad:
                line = {"unit": unit.name, "bad": bad, "file": path}
            else:
                rows = pa.ipc.open_stream(batch["rows"][row].as_buffer()).read_all()
                line = self._unit(unit, path, rows)
            lines.append(json.dumps(line))
        return lines

    def _unit(self, unit: Unit, path: str, rows: pa.Table) -> dict[str, Any]:
        context = self._context
        config, folder = context.config, context.folder
        copies = config.duplicates == "keep"
        found = extract(rows, context.shape, config.names, config.max_text_chars, copies)
        isolation = Isolation(
            self._second,
            folder.store,
            unit.name,
            config.max_killed_rows,
            deadline_s(self._usual_s, config.unit_timeout_s),
            self._careful,
        )
        scored, seconds = self._scores(isolation, unit, found.pairs)
        scores = scored.scores
        added = added_values(
            scores, self._scorer.info.activation, config.added_columns, context.calibration
        )
        # Where copies may lie in other units, only the merge knows what top_k cuts.
        top_k = config.top_k if copies or not context.buckets else None
        ranked = rank_unit(
            rows, found, scores.raw, added, shape=context.shape, names=config.names, top_k=top_k
        )
        aside = [("check", item) for item in found.aside]
        aside += [
            ("score", item)
            for item in failed_pairs(found, scores, context.shape, rows, config.names)
        ]
        counts = unit_counts(unit, found, scores, ranked, context.shape)
        counts["pairs_reused"] = scored.reused
        check_conservation(f"unit {unit.name}", counts)
        record: dict[str, Any] = {"file": path, "retries": isolation.deaths, "counts": counts}
        record |= {"reasons": count_reasons(aside), **histograms(scores)}
        record |= {} if context.buckets else ranked.moved
        try:
            record |= write_unit(context, unit, (path, rows), ranked, aside, scored.kept)
            record |= {"seconds": round(seconds, 3), "at": round(time.time(), 3)}
            published = folder.publish("units", unit.name, record)
        except BaseException:
            isolation.survived()
            raise
        if machine.is_usual(record):
            self._usual_s = [*self._usual_s[-machine.SAMPLE :], record["seconds"]]
        if not published:
            folder.drop("data", record["data"])
            folder.drop("quarantine", record["aside"])
        return {"unit": unit.name, "published": published, **record}

    def _scores(
        self, isolation: Isolation, unit: Unit, pairs: list[QueryDocumentPair]
    ) -> tuple[Scored, float]:
        """Return the scores and the seconds that they took, waiting for the turn not counted."""
        config, folder = self._context.config, self._context.folder
        kind = kept_kind(config.scorer)
        known = self._context.known.of_unit(folder, unit.index, kind)
        took: list[float] = []

        def score(distinct: Sequence[QueryDocumentPair]) -> PairScores:
            items: Sequence[Any] = distinct
            if self._halves:
                with self._preparing:
                    items = self._halves.prepare(distinct)
            scores, seconds = self._scoring.submit(_timed, isolation, items).result()
            took.append(seconds)
            return scores

        # Of a cascade a score depends on more than its pair.
        if known is None and not (config.keep_scores and not config.scorer.first_stage):
            return Scored(score_distinct(score, pairs), 0, None), sum(took)
        return score_unknown(score, pairs, known, kind), sum(took)


def _timed(isolation: Isolation, items: Sequence[Any]) -> tuple[PairScores, float]:
    """Return the scores and the seconds that they took; it runs in the scoring thread."""
    begun_s = time.monotonic()
    scores = isolation.score(items)
    if len(scores) == 1:
        # Its note would stay until its record is there. Another unit that kills the process
        # meanwhile makes a large one score in halves, and would make a single pair a killer.
        isolation.survived()
    return scores, time.monotonic() - begun_s
