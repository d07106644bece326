"""Reads slices on CPU tasks, and scores units on actors: the two stages that Ray Data runs.

A unit travels as one row (its description and its rows as Arrow bytes), so however Ray cuts and
joins blocks, an actor gets exactly one unit per call. The actor writes the unit's result itself;
only a line of counts goes back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.commits import JobFolder, check_conservation
from pipelines.config import ColumnNames, RerankJobConfig, Shape
from pipelines.inputs import InputFile, is_outage, read_units, reason_of
from pipelines.isolation import Isolation
from pipelines.joins import Texts, join_texts
from pipelines.pairs import Aside, RankedUnit, UnitPairs, extract, keep_columns, one_list, rank_unit
from pipelines.quarantine import aside_table, count_reasons
from pipelines.rank_stage import sidecar
from pipelines.units import Slice, Unit, slice_from_json
from rerank_core import Scorer, ScorerConfig, activate
from rerank_core.types import Float32s, PairScores, QueryDocumentPair

LoadScorer = Callable[[ScorerConfig], Scorer]
_UNIT_ROW_TYPES: dict[str, pa.DataType] = {
    "unit": pa.string(),
    "file": pa.string(),
    "rows": pa.large_binary(),
    "bad": pa.string(),
}
_UNIT_ROW = pa.schema(_UNIT_ROW_TYPES)


@dataclass(frozen=True, slots=True)
class JobContext:
    """What every worker needs to know of the job."""

    folder: JobFolder
    config: RerankJobConfig
    shape: Shape
    buckets: int  # 0: no merge of queries over units follows
    joined: bool = False  # texts were looked up: they are not part of the output


class Engine(Protocol):
    """Runs the stages somewhere: Ray Data in production, one process in the protocol's tests."""

    def score_units(
        self,
        context: JobContext,
        slices: list[Slice],
        files: list[InputFile],
        texts: Texts | None,
        load: LoadScorer,
    ) -> Iterator[dict[str, Any]]:
        """Read and score the slices' units; yield a line for each when it is done."""
        ...

    def run_tasks(
        self, items: list[dict[str, Any]], task: Callable[[dict[str, Any]], dict[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Run the task on each item; yield its line when it is done."""
        ...


def slice_row(piece: Slice, file: InputFile) -> dict[str, str]:
    """Return the row that `read_slice` takes."""
    plain = {"path": file.path, "size": file.size, "footer": file.footer}
    return {"slice": json.dumps(asdict(piece)), "file": json.dumps(plain)}


def read_slice(
    batch: Any, texts: Texts | None = None, names: ColumnNames | None = None
) -> Iterator[pa.Table]:
    """Decode slices, look up their texts where they have none, and yield one row per unit.

    A unit that cannot be read has `bad` and no rows. Failures of the storage itself are raised,
    never taken for bad files.
    """
    for row in batch.to_pylist():
        piece, file = (
            slice_from_json(json.loads(row["slice"])),
            InputFile(**json.loads(row["file"])),
        )
        left = list(piece.units)
        units = read_units(piece, file)
        while left:
            try:
                unit, rows = next(units)
            except PermissionError:
                raise
            except (pa.ArrowException, OSError) as error:
                if is_outage(error):
                    raise
                for unit in left:
                    yield _unit_row(unit, file.path, None, reason_of(error))
                break
            left.remove(unit)
            if texts and names:
                rows = join_texts(rows, texts, names)
            yield _unit_row(unit, file.path, _to_bytes(rows), "")


def _unit_row(unit: Unit, path: str, rows: pa.Buffer | None, bad: str) -> pa.Table:
    body = rows if rows is not None else pa.py_buffer(b"")
    ends = pa.array([0, body.size], pa.int64()).buffers()[1]
    columns = [
        pa.array([json.dumps(asdict(unit))]),
        pa.array([path]),
        # Without a copy: a unit may be large.
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, body]),
        pa.array([bad]),
    ]
    return pa.table(columns, schema=_UNIT_ROW)


def _to_bytes(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


class ScoreUnits:
    """The class each actor of the pool runs: one model, one unit per call."""

    def __init__(self, context: JobContext, load: LoadScorer) -> None:
        self._context = context
        self._scorer = load(context.config.scorer)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score each unit row and publish its record; return a line of JSON for each."""
        lines = []
        for row in range(batch.num_rows):
            unit = Unit(**json.loads(batch["unit"][row].as_py()))
            path, bad = batch["file"][row].as_py(), batch["bad"][row].as_py()
            if bad:
                line = {"unit": unit.name, "bad": bad, "file": path}
            else:
                rows = pa.ipc.open_stream(batch["rows"][row].as_buffer()).read_all()
                line = self._unit(unit, path, rows)
            lines.append(json.dumps(line))
        return pa.table({"line": lines})

    def _unit(self, unit: Unit, path: str, rows: pa.Table) -> dict[str, Any]:
        started_s = time.monotonic()
        context = self._context
        config, folder = context.config, context.folder
        found = extract(rows, context.shape, config.names, config.max_text_chars)
        isolation = Isolation(
            self._scorer,
            folder.job / "attempts" / unit.name,
            folder.job / "killed",
            config.max_killed_rows,
            config.unit_timeout_s,
        )
        scores = score_distinct(isolation, found.pairs)
        activated = activate(scores.raw, self._scorer.info.activation)
        ranked = rank_unit(
            rows, context.shape, config.names, found, scores.raw, activated, config.top_k
        )
        aside = [("check", item) for item in found.aside]
        aside += [("score", item) for item in _failed(found, scores, context.shape, rows, config)]
        counts = _counts(unit, found, scores, ranked, context.shape)
        check_conservation(f"unit {unit.name}", counts)
        record = {"counts": counts, "reasons": count_reasons(aside)}
        record |= _histograms(activated, scores)
        record |= self._write(unit, path, rows, ranked, aside)
        record |= {"seconds": round(time.monotonic() - started_s, 3), "at": round(time.time(), 3)}
        published = folder.publish("units", unit.name, record)
        if not published:
            for place, key in (("data", "data"), ("quarantine", "aside"), ("sidecars", "sidecar")):
                folder.drop(place, record[key])
        isolation.clear()
        return {"unit": unit.name, "published": published, **record}

    def _write(
        self,
        unit: Unit,
        path: str,
        rows: pa.Table,
        ranked: RankedUnit,
        aside: list[tuple[str, Aside]],
    ) -> dict[str, Any]:
        context = self._context
        config, folder = context.config, context.folder
        table = keep_columns(ranked.table, config.columns, config.names)
        if context.joined and config.columns is None:
            table = table.drop_columns([config.names.query, config.names.text])
        out: dict[str, Any] = {"data": None, "aside": None, "sidecar": None}
        if table.num_rows:
            out["data"] = folder.write_parquet("data", unit.name, table)
        if aside:
            lines = aside_table(aside, rows, unit, path, context.shape, config.names)
            out["aside"] = folder.write_parquet("quarantine", unit.name, lines)
        if context.buckets:
            body = sidecar(ranked.query, ranked.queries, ranked.raw, context.buckets)
            out["sidecar"] = folder.write_bytes("sidecars", unit.name, ".arrow", body)
        return out


def _histograms(activated: Float32s, scores: PairScores) -> dict[str, list[int]]:
    """Return counts of scores in 20 equal steps of 0..1, and of tokens by powers of two."""
    good = np.isfinite(activated)
    tokens = np.log2(np.maximum(scores.tokens[good], 1))
    return {
        "score_histogram": np.histogram(np.clip(activated[good], 0, 1), 20, (0, 1))[0].tolist(),
        "token_histogram": np.histogram(np.clip(tokens, 0, 14), 28, (0, 14))[0].tolist(),
    }


def score_distinct(isolation: Isolation, pairs: list[QueryDocumentPair]) -> PairScores:
    """Score each different pair once and give its score to all its copies."""
    if not pairs:
        none = np.empty(0, dtype=np.float32)
        return PairScores(none, none.astype(np.int32), none.astype(np.bool_))
    places: dict[QueryDocumentPair, int] = {}
    index = np.array([places.setdefault(pair, len(places)) for pair in pairs], dtype=np.int64)
    scores = isolation.score(list(places))
    errors = {
        place: scores.errors[int(distinct)]
        for place, distinct in enumerate(index)
        if int(distinct) in scores.errors
    }
    return PairScores(scores.raw[index], scores.tokens[index], scores.truncated[index], errors)


def _failed(
    found: UnitPairs,
    scores: PairScores,
    shape: Shape,
    rows: pa.Table,
    config: RerankJobConfig,
) -> list[Aside]:
    """Return the pairs that the scorer gave no finite score, as rows set aside."""
    bad = {int(i): "non_finite_score" for i in np.flatnonzero(~np.isfinite(scores.raw))}
    bad.update(scores.errors)
    if shape == "pairs":
        return [Aside(found.row[i], None, reason) for i, reason in bad.items()]
    offsets = one_list(rows[config.names.candidates]).offsets.to_pylist()
    return [
        Aside(found.row[i], found.entry[i] - offsets[found.row[i]], reason)
        for i, reason in bad.items()
    ]


def _counts(
    unit: Unit, found: UnitPairs, scores: PairScores, ranked: RankedUnit, shape: Shape
) -> dict[str, int]:
    failed = int((~np.isfinite(scores.raw)).sum())
    pairs_quarantined = found.pairs_in - len(found.pairs) + failed
    rows_quarantined = len(found.rows_aside) + (failed if shape == "pairs" else 0)
    cut = len(found.pairs) - failed - ranked.pairs_out
    return {
        "rows_in": unit.rows,
        "rows_out": ranked.table.num_rows,
        "rows_cut": cut if shape == "pairs" else 0,
        "rows_quarantined": rows_quarantined,
        "pairs_in": found.pairs_in,
        "pairs_out": ranked.pairs_out,
        "pairs_cut": cut,
        "pairs_quarantined": pairs_quarantined,
        "pairs_scored_once": len(found.pairs),
        "tokens": int(scores.tokens.sum()),
        "truncated": int(scores.truncated.sum()),
        "texts_cut": found.texts_cut,
    }
